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
    """Settings of one server; every limit holds for one request unless it says otherwise.

    Args:
        host, port: address to listen at; port 0 takes a free one.
        token: clients must send it as `Authorization: Bearer TOKEN`; None accepts every client.
        max_mb: size of a body. max_unpacked_mb: of a zip archive's content.
        max_memory_mb: memory that a scan may need, computed from its header.
        max_megapixels: pixels of a scan on the network's grid, as `attunet predict` bounds them.
        max_queue: waiting scans of all clients.
        workers: networks that run at the same time.
        timeout_s: from the first byte of a request to the last of its answer.
        temp: folder for uploads, the system's own by default.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    max_mb: int = 512
    max_unpacked_mb: int = 2048
    max_memory_mb: int = 8192
    max_megapixels: int = MAX_MEGAPIXELS
    max_queue: int = 16
    workers: int = 1
    timeout_s: float = 300.0
    temp: Path | None = None

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
