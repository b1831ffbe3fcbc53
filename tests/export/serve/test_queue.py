"""The queue before the models."""

import asyncio
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from prometheus_client import generate_latest

from attunet.export.serve.guard import Guard
from attunet.export.serve.metrics import Metrics
from attunet.export.serve.work.queue import Ticket, WorkQueue


@pytest.mark.parametrize("fails", [False, True])
def test_files_are_removed_while_others_are_served(fails: bool) -> None:
    others_are_served, order = threading.Event(), []

    def work(_: Ticket) -> str:
        order.append("work")
        if fails:
            raise ValueError("damaged")
        return "labels"

    def remove() -> None:  # thousands of files
        order.append("removed" if others_are_served.wait(10) else "nobody was served meanwhile")

    async def run() -> None:
        queue = WorkQueue(workers=1, max_waiting=1, metrics=Metrics([]))
        ticket = Ticket(time.monotonic() + 60)
        running = asyncio.ensure_future(queue.run(work, ticket, left=asyncio.Event().wait, remove=remove))
        while not order:
            await asyncio.sleep(0.01)
        others_are_served.set()
        await asyncio.wait({running})
        assert (type(running.exception()) is ValueError) is fails
        queue.close()

    asyncio.run(run())
    assert order == ["work", "removed"]


class Growing(dict[str, float]):
    """The stages of work that was given up and adds one while they are read."""

    def items(self) -> Iterator[tuple[str, float]]:
        for stage in self:
            self["network"] = 1.0
            yield stage, self[stage]


def test_the_line_of_a_request_is_written_while_work_that_was_given_up_goes_on() -> None:
    ticket, metrics = Ticket(time.monotonic()), Metrics([])
    ticket.seconds = Growing(read=1.0)
    Guard(lambda *_: None, SimpleNamespace(models={}, metrics=metrics))._record({"method": "POST"}, 504, 1.0, ticket)
    assert b'attunet_failures_total{model="",reason="504",route="none"} 1.0' in generate_latest(metrics.registry)
