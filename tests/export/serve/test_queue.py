"""The queue before the models."""

import asyncio
import threading
import time

import pytest

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
