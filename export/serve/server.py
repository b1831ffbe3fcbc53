"""The running server: the socket, limits of its connections, signals, logs."""

import asyncio
import logging
import resource
import signal
import socket
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import ClassVar

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from attunet.errors import RunError, one_line
from attunet.export.serve.app import make_app
from attunet.export.serve.service import Service
from attunet.export.serve.settings import Settings
from attunet.export.serve.work.served_model import ServedModel
from attunet.system.private_folder import PrivateFolder

logger = logging.getLogger(__name__)

HEADER_S = 20.0  # for the head of a request
IDLE_S = 20  # for a connection between two requests
MAX_CONNECTIONS = 1024
MAX_FILES = 4096  # open ones, where the system allows so many: connections, their uploads, what libraries open
BACKLOG = 128  # connections that are accepted at once, before the first of them is looked at
FREE_CHUNKS, MIN_CHUNK_BYTES = 64, 1024  # of a chunked body: tiny ones in a row; the average of further ones
MAX_READ = 2**16  # bytes of a connection that are worked off before it is the next one's turn


def serve(settings: Settings, load: Callable[[], Mapping[str, ServedModel]]) -> None:
    """Serve the models that `load` gives by name, once the address is taken, until SIGTERM, SIGINT or SIGHUP comes;
    requests that run then are finished. Raises RunError where the address cannot be listened on.
    """
    with _listen(settings) as listening:
        models = load()
        with PrivateFolder(settings.temp) as folder:
            for name, model in models.items():
                about, segmenter = model.segmenter.metadata, model.segmenter
                text = f"{about.name} {about.precision} on {segmenter.provider}, SHA-256 {segmenter.sha256}"
                logger.info(f"model {name}: {text}")
            host, port = listening.getsockname()[:2]
            logger.info(f"serving at http://{f'[{host}]' if ':' in host else host}:{port}")
            server = _Server(Service(settings, models, folder))
            if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup sets it
                signal.signal(signal.SIGHUP, server.handle_exit)  # uvicorn handles SIGTERM and SIGINT alone
            server.run(sockets=[listening])
            logger.info("stopped")


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=512)
    except (OSError, TypeError) as error:  # the second for a host that is no name, such as ä..b
        reason = getattr(error, "strerror", None) or one_line(error)
        raise RunError(f"{settings.host}:{settings.port}: cannot be listened on: {reason}") from None


class _Server(uvicorn.Server):
    """uvicorn that ends with exit code 0 after a signal and informs the service; a second signal ends it at once."""

    def __init__(self, service: Service) -> None:
        self._service = service
        files = _allowed_files()
        backlog = min(BACKLOG, files // 8)
        BoundedProtocol.max_connections = min(MAX_CONNECTIONS, (files - backlog) // 2)
        settings = service.settings
        super().__init__(
            uvicorn.Config(
                make_app(service),
                http=BoundedProtocol,
                loop="asyncio",  # not uvloop where it is installed: `MAX_READ` is for asyncio's sockets
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=backlog,
                timeout_keep_alive=IDLE_S,
                timeout_graceful_shutdown=round(settings.timeout_s) + 5,
            )
        )
        # Their tracebacks may quote a file; the guard logs errors
        for library in ("uvicorn", "asyncio"):
            logging.getLogger(library).setLevel(logging.CRITICAL)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.ending.set()
        await super().shutdown(sockets)


def _allowed_files() -> int:
    """The number of files that this process may open, raised to `MAX_FILES` where the system lets it."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (MAX_FILES if limit == resource.RLIM_INFINITY else limit for limit in limits)
    if soft < min(MAX_FILES, hard):
        soft = min(MAX_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, limits[1]))
    return soft


class _BoundedParser(h11.Connection):
    """A parser that refuses bodies of many tiny chunks, with `refusal` as the reason: one of a byte takes as long as
    one of thousands, and nobody else is served meanwhile.
    """

    refusal = ""
    _chunks_left = 0.0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks_left = FREE_CHUNKS
        elif isinstance(event, h11.Data):
            left = min(FREE_CHUNKS, self._chunks_left + len(event.data) / MIN_CHUNK_BYTES)
            self._chunks_left = left - event.chunk_start
            if self._chunks_left < 0:
                self.refusal = f"body: chunks must have {MIN_CHUNK_BYTES:,} bytes on average"
                raise h11.RemoteProtocolError(self.refusal)
        return event


class BoundedProtocol(H11Protocol):
    """HTTP whose heads must arrive within `HEADER_S`, on so many connections: uvicorn itself waits for ever.

    Where there are too many, the one that has sent no request for the longest time is closed, of those that are idle or
    do not read their answer, so that they do not keep others out. Chunks of a body must not be tiny (`_BoundedParser`).
    """

    conn: _BoundedParser
    max_connections: ClassVar[int] = MAX_CONNECTIONS
    _timer: asyncio.TimerHandle | None = None
    _heard = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.conn = _BoundedParser(h11.SERVER)
        transport.max_size = MAX_READ  # type: ignore[attr-defined]  # asyncio's own sockets have it
        self._heard = time.monotonic()
        self._watch()
        if len(self.connections) > self.max_connections:
            self._make_room()

    def _make_room(self) -> None:
        there = [one for one in self.connections if isinstance(one, BoundedProtocol) and one._is_open]
        if len(there) > self.max_connections:
            idle = [one for one in there if one.cycle is None or one.cycle.response_complete or one.flow.write_paused]
            min(idle, key=lambda one: one._heard).transport.abort()

    @property
    def _is_open(self) -> bool:
        """True until it is closed and nothing waits for its client any more."""
        return not self.transport.is_closing() or self.transport.get_write_buffer_size() > 0

    def data_received(self, data: bytes) -> None:
        self._heard = time.monotonic()
        super().data_received(data)
        self._watch()

    def send_400_response(self, msg: str) -> None:
        super().send_400_response(self.conn.refusal or msg)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop()

    def _watch(self) -> None:
        """Starts the clock where a head is expected, stops it where one has arrived."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEADER_S, self.timeout_keep_alive_handler)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
