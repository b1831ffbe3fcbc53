"""The frame of every request: access, time limit, number at once; and for each a line of the log and a count."""

import asyncio
import contextlib
import logging
import re
import time
import traceback
from pathlib import Path

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from attunet.export.serve.refusal import UNAVAILABLE, Refusal, reply
from attunet.export.serve.routes.context import TICKET
from attunet.export.serve.routes.pages import PAGES
from attunet.export.serve.service import Service
from attunet.export.serve.settings import LOOPBACK
from attunet.export.serve.work.queue import Ticket

logger = logging.getLogger(__name__)

OPEN_PATHS = (*PAGES, "/niivue.js", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready")  # without a token
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")  # a method may be any text
MAX_REQUESTS = 256  # open ones, of all clients
HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::\d+)?")  # a name or an address, and a port
HUNG_UP = 499  # as web servers log a client that left
SENDING_S = 30.0  # for an answer that was finished at the last moment
DRAIN_S, DRAIN_BYTES = 1.0, 2**23  # of a refused body, so that the client can read the refusal
SAFETY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Guard:
    """The application around all others."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service, self._open = app, service, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        ticket = scope[TICKET] = Ticket(time.monotonic() + self._service.settings.timeout_s)
        self._count(1)
        start = time.monotonic()
        try:
            async with asyncio.timeout(self._service.settings.timeout_s + SENDING_S):
                await self._answer(scope, exchange)
        except (TimeoutError, ClientDisconnect):
            exchange.status = exchange.status or HUNG_UP
        finally:
            self._count(-1)
            self._service.answers.give_back(ticket.answer_bytes)
            self._record(scope, exchange.status or HUNG_UP, time.monotonic() - start, ticket)

    async def _answer(self, scope: Scope, exchange: "_Exchange") -> None:
        try:
            self._check(scope)
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            raise
        except Exception as error:
            if not isinstance(error, Refusal):  # its text may quote a file
                logger.error("%s at %s", type(error).__name__, _places(error))
            if exchange.status is None:
                await reply(error)(scope, exchange.receive, exchange.send)

    def _check(self, scope: Scope) -> None:
        settings, headers = self._service.settings, dict(scope["headers"])
        if self._open > MAX_REQUESTS and scope["method"] not in ("GET", "HEAD"):  # health is answered at any time
            raise Refusal(UNAVAILABLE, f"{MAX_REQUESTS} requests are open; try again", retry_after=5)
        if {b"content-length", b"transfer-encoding"} <= set(headers):
            # A proxy and this server might take different ends of the body, and so another request out of it.
            raise Refusal(400, "Content-Length: must not be there beside Transfer-Encoding")
        host = HOST.fullmatch(headers.get(b"host", b"").decode("latin-1"))
        if settings.token is None and settings.is_local and (host is None or host[1].strip("[]") not in LOOPBACK):
            # A page of another site whose name was made to lead here sends that site's name, and knows no token.
            raise Refusal(421, f"Host: must be {' or '.join(LOOPBACK)}")
        site = headers.get(b"sec-fetch-site", b"none")  # browsers send it, scripts cannot
        if settings.token is None and scope["method"] not in ("GET", "HEAD") and site not in (b"none", b"same-origin"):
            raise Refusal(403, "Sec-Fetch-Site: must be same-origin; pages of other sites cannot use this server")
        if settings.token is not None and scope["path"] not in OPEN_PATHS:
            kind, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
            if kind.lower() != "bearer" or not settings.accepts(token.strip()):
                raise Refusal(401, "Authorization: must be Bearer with this server's token")

    def _count(self, change: int) -> None:
        self._open += change
        self._service.metrics.open_requests.set(self._open)

    def _record(self, scope: Scope, status: int, seconds: float, ticket: Ticket) -> None:
        """One line without a word of the request: the pattern of the address, and a name only if a model has it."""
        route = getattr(scope.get("route"), "path", "none")
        name = scope.get("path_params", {}).get("name", "")
        model = name if name in self._service.models else ""
        metrics = self._service.metrics
        metrics.requests.labels(route, model, str(status)).inc()
        if status >= 400:
            metrics.failures.labels(route, model, str(status)).inc()
        stages = {stage: round(spent, 4) for stage, spent in ticket.seconds.copy().items()}
        method = scope["method"] if scope["method"] in METHODS else "other"
        facts: dict[str, object] = {"method": method, "route": route, "model": model, "status": status}
        facts |= {"seconds": round(seconds, 4), "stages": stages}
        text = " ".join(f"{stage} {spent:.3f}" for stage, spent in stages.items())
        line = f"{method} {route} {model or '-'} {status} {seconds:.3f} s {text}"
        logger.info(line, extra={"request": facts})


class _Exchange:
    """A request's body and answer; `status` of the answer is None until it begins."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        names = {name for name, _ in scope["headers"]}
        self._body_is_over = not names & {b"content-length", b"transfer-encoding"}
        self.status: int | None = None

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._body_is_over = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            closing = [] if self._body_is_over else [(b"connection", b"close")]
            message = {**message, "headers": [*message.get("headers", []), *SAFETY_HEADERS, *closing]}
        elif not message.get("more_body", False):
            # uvicorn takes all of a part and waits before the next one, until the client has read most of it
            await self._send({**message, "more_body": True})
            if not self._body_is_over:
                await self._drain()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _drain(self) -> None:
        """Receives some of a refused body: closing the connection while the client sends would lose the answer."""
        left = DRAIN_BYTES
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while left > 0 and not self._body_is_over:
                    left -= len((await self.receive()).get("body", b""))


def _places(error: BaseException) -> str:
    """File and line of an error, without its text."""
    frames = traceback.extract_tb(error.__traceback__)
    return " ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-8:])
