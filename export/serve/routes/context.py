"""Reception of a body and work on it, which all addresses with a body share."""

import asyncio
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from starlette.requests import Request

from attunet.export.runtime.audit import Audit
from attunet.export.serve.refusal import Refusal
from attunet.export.serve.scans.upload import Upload, receive
from attunet.export.serve.service import Service
from attunet.export.serve.work.queue import Ticket
from attunet.export.serve.work.served_model import ServedModel

Result = TypeVar("Result")
TICKET = "attunet.ticket"  # its key in a request's scope


def service_of(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


def audit_of(request: Request, model: ServedModel) -> Audit | None:
    """The model's audit log, for the user that a request names. Raises InputError for a name that is not allowed."""
    header = request.headers.get("x-attunet-user", "").encode("latin-1")  # as starlette decodes headers
    return model.audit and replace(model.audit, user=header.decode("utf-8", "surrogateescape") or None)


async def receive_and_run(
    request: Request, model: ServedModel, work: Callable[[Upload, Ticket], tuple[Result, int]]
) -> tuple[Result, Ticket]:
    """Receives the body into a folder, runs `work` in the queue, and removes the folder in every case. `work` returns
    the result, and the bytes of the answer, which stay in memory until the client has read them. Raises Refusal as
    `receive` and `WorkQueue.run` do, and with 503 where clients have read too few of the answers before.
    """
    service, ticket = service_of(request), request.scope[TICKET]
    service.check_running()
    service.queue.check_room()  # before anything is sent in vain
    folder = service.folder.request_folder()
    with ExitStack() as undo:  # also where the task is cancelled
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        with ticket.stage("upload"):
            upload = await _receive(request, folder, service, ticket)
        undo.pop_all()

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        service.space.give_back(upload.size)

    try:
        result, size = await service.queue.run(
            partial(work, upload), ticket, left=lambda: _left(request), remove=remove
        )
    finally:
        for stage, seconds in ticket.seconds.copy().items():  # work that was given up may still add to them
            service.metrics.seconds.labels(model.name, stage).observe(seconds)
    service.answers.take(size)
    ticket.answer_bytes = size
    return result, ticket


async def _receive(request: Request, folder: Path, service: Service, ticket: Ticket) -> Upload:
    """The upload; Refusal with 408 where it does not arrive in time, 503 where the server stops before it is whole."""
    receiving = asyncio.ensure_future(receive(request, folder, max_mb=service.settings.max_mb, space=service.space))
    ending = asyncio.ensure_future(service.ending.wait())
    try:
        remaining = max(0.0, ticket.deadline - time.monotonic())
        await asyncio.wait({receiving, ending}, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
        if receiving.done():
            return receiving.result()
        service.check_running()
        raise Refusal(408, f"body: did not arrive within {service.settings.timeout_s:g} s")
    finally:
        for task in (receiving, ending):
            task.cancel()
        await asyncio.gather(receiving, ending, return_exceptions=True)


async def _left(request: Request) -> None:
    """Returns when the client hangs up; its body has been received."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
