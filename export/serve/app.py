"""The application: routes, answers to errors, and the guard around them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from attunet.errors import InputError, RunError
from attunet.export.serve.guard import HUNG_UP, Guard
from attunet.export.serve.refusal import Refusal, reply
from attunet.export.serve.routes import inference, pages, segment
from attunet.export.serve.service import Service
from attunet.version import __version__

DESCRIPTION = "Segmentation of medical volumes with artefacts of attunet. Not a medical device."


def make_app(service: Service) -> ASGIApp:
    """An ASGI application that serves `service`."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.queue.close()

    app = _Described(
        title="attunet", version=__version__, description=DESCRIPTION, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    app.state.service = service
    for kind in (Refusal, InputError, RunError, OSError, MemoryError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answer_error)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    for router in (segment.router, inference.router, pages.router):
        app.include_router(router)
    return Guard(app, service)


class _Described(FastAPI):
    """FastAPI whose description lists the served models, but where a token is needed to know them."""

    def openapi(self) -> dict[str, object]:
        description = super().openapi()
        if self.state.service.settings.token is not None:
            return description
        for operations in description["paths"].values():
            for operation in operations.values():
                for parameter in operation.get("parameters", []):
                    if (parameter["in"], parameter["name"]) == ("path", "name"):
                        parameter["schema"]["enum"] = list(self.state.service.models)
        return description


async def _answer_error(_: Request, error: Exception) -> Response:
    return reply(error)


async def _answer_nobody(_: Request, error: Exception) -> Response:
    return Response(status_code=HUNG_UP)
