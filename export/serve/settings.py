"""Settings and limits of the server."""

import hmac
from dataclasses import dataclass
from pathlib import Path

from attunet.errors import InputError
from attunet.system.atomic_files import require_regular
from attunet.volumes.predict import MAX_MEGAPIXELS

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MIN_TOKEN_CHARACTERS, MAX_TOKEN_BYTES = 16, 2**12
MB = 10**6


@dataclass(frozen=True)
class Settings:
    """Settings of one server; every limit holds for one request unless it says otherwise."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0 takes a free one
    token: str | None = None  # clients send it as `Authorization: Bearer TOKEN`; None accepts every client
    max_mb: int = 512  # size of a body
    max_unpacked_mb: int = 2048  # of a zip archive's content
    max_memory_mb: int = 8192  # memory that a scan may need, computed from its header
    max_megapixels: int = MAX_MEGAPIXELS  # of a scan on the network's grid, as `attunet predict` bounds them
    max_queue: int = 16  # waiting scans of all clients
    workers: int = 1  # networks that run at the same time
    timeout_s: float = 300.0  # from the first byte of a request to the last of its answer
    temp: Path | None = None  # folder for uploads, the system's own by default

    @property
    def is_local(self) -> bool:
        """True if other machines cannot reach the server."""
        return self.host in LOOPBACK

    def accepts(self, token: str) -> bool:
        """Compare a client's token in constant time."""
        return self.token is None or hmac.compare_digest(token.encode(), self.token.encode())


def check_reachable(settings: Settings, *, insecure: bool) -> None:
    """Raises InputError for a server that other machines reach and that needs no token, unless `insecure` allows it."""
    if settings.token is None and not settings.is_local and not insecure:
        raise InputError(
            f"host: {settings.host} can be reached by other machines, so a token is needed: --token-file FILE (or "
            "--insecure without one)"
        )


def read_token(path: Path) -> str:
    """The token in a file, stripped of white space. Raises InputError if it is short or not printable ASCII."""
    try:
        require_regular(path)
        if (size := path.stat().st_size) > MAX_TOKEN_BYTES:
            raise OSError(f"must have at most {MAX_TOKEN_BYTES:,} bytes, got {size:,}")
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the token cannot be read: {error}") from None
    if len(token) < MIN_TOKEN_CHARACTERS or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(
            f"{path}: the token must have at least {MIN_TOKEN_CHARACTERS} printable ASCII characters and no blanks"
        )
    return token
