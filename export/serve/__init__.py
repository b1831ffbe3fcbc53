"""An HTTP server for artefacts (the extra `serve`), and its client (the extra `client`); neither needs torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attunet.export.serve.client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> "type[Client]":
    """`Client` on demand, so that the server runs without httpx."""
    if name == "Client":
        from attunet.export.serve.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
