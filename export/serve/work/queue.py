"""A bounded queue before the models, with a time limit; work ends where its client hangs up."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from starlette.requests import ClientDisconnect

from attunet.errors import RunError
from attunet.export.runtime.stop import Stop
from attunet.export.serve.metrics import Metrics
from attunet.export.serve.refusal import UNAVAILABLE, Refusal

Result = TypeVar("Result")

READ_AHEAD = 2  # scans that are read or written while another one is in the network


class Stopped(Exception):
    """The work ends because the client left or its time is over."""


class Ticket:
    """One request's place: its time limit, and the seconds of its stages."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline  # of time.monotonic()
        self.seconds: dict[str, float] = {}
        self.stop = Stop()  # of the graph that runs
        self.answer_bytes = 0  # kept until the client has read them

    def check(self) -> None:
        """Raises Stopped where the client left or the time is over; work calls it between its steps."""
        if self.stop.is_set or time.monotonic() > self.deadline:
            raise Stopped

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Context of a run that `stop` may end; its error becomes Stopped."""
        self.check()
        try:
            yield
        except RunError:
            self.check()
            raise

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measures a stage of the work."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start


class WorkQueue:
    """Runs work in threads, the oldest first: workers + READ_AHEAD pieces at once, so that reading and writing overlap
    with the network, whose turns are the models' own; `max_waiting` more may wait.
    """

    def __init__(self, *, workers: int, max_waiting: int, metrics: Metrics) -> None:
        self._slots, self._max_waiting, self._metrics = workers + READ_AHEAD, max_waiting, metrics
        self._free = asyncio.Semaphore(self._slots)
        self._threads = ThreadPoolExecutor(self._slots, "scan")
        self._waiting = self._running = 0
        self._typical_s = 1.0

    def check_room(self) -> None:
        """Raises Refusal with status 503 where the queue is full."""
        if self._running >= self._slots and self._waiting >= self._max_waiting:
            after = math.ceil(self._typical_s * (self._waiting + 1) / self._slots)
            text = f"the queue is full ({self._max_waiting} scans wait); try again"
            raise Refusal(UNAVAILABLE, text, retry_after=min(max(after, 1), 60))

    async def run(
        self,
        work: Callable[[Ticket], Result],
        ticket: Ticket,
        *,
        left: Callable[[], Awaitable[None]],
        remove: Callable[[], None],
    ) -> Result:
        """The result of `work(ticket)`. Raises Refusal with 503 where the queue is full or the time ends before the
        work begins, with 504 where it ends later, and ClientDisconnect.

        Args:
            left: returns when the client hangs up.
            remove: called once when the work is over, or will not begin; removes its files. After work it is called in
                the work's thread: thousands of files take seconds, in which others would wait.
        """

        def work_and_remove() -> Result:
            try:
                return work(ticket)
            finally:
                remove()

        leaving = asyncio.ensure_future(left())
        try:
            with ExitStack() as undo:  # also where the task is cancelled
                undo.callback(remove)
                self.check_room()
                with ticket.stage("queue"):
                    await self._wait_for_slot(ticket, leaving)
                undo.pop_all()
            return await self._run(work_and_remove, ticket, leaving)
        finally:
            leaving.cancel()

    async def _wait_for_slot(self, ticket: Ticket, leaving: "asyncio.Future[None]") -> None:
        turn = asyncio.ensure_future(self._free.acquire())
        self._count(waiting=1)
        try:
            await _first_of(turn, leaving, ticket)
        finally:
            self._count(waiting=-1)
            if not turn.done():
                turn.cancel()
        if turn.cancelled() or not turn.done():
            if leaving.done():
                raise ClientDisconnect
            raise Refusal(UNAVAILABLE, "the scan waited as long as a request may last; try again", retry_after=30)

    async def _run(self, work: Callable[[], Result], ticket: Ticket, leaving: "asyncio.Future[None]") -> Result:
        self._count(running=1)
        start = time.monotonic()
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)

        def over(done: "asyncio.Future[Result]") -> None:
            self._count(running=-1)
            self._free.release()
            self._typical_s += 0.1 * (time.monotonic() - start - self._typical_s)
            if not done.cancelled():
                done.exception()  # of abandoned work, which would be logged otherwise

        running.add_done_callback(over)
        try:
            await _first_of(running, leaving, ticket)
        finally:
            if not running.done():
                ticket.stop.set()
        if running.done():
            try:
                return running.result()
            except Stopped:
                pass
        elif leaving.done():
            raise ClientDisconnect
        raise Refusal(504, "the scan took longer than a request may last")

    def close(self) -> None:
        """Waits for the work in progress."""
        self._threads.shutdown()

    def _count(self, *, waiting: int = 0, running: int = 0) -> None:
        self._waiting += waiting
        self._running += running
        self._metrics.waiting.set(self._waiting)
        self._metrics.running.set(self._running)


async def _first_of(work: "asyncio.Future[Result]", leaving: "asyncio.Future[None]", ticket: Ticket) -> None:
    """Returns when one of both is done, or the time is over."""
    waiting: set[asyncio.Future[Result] | asyncio.Future[None]] = {work, leaving}
    await asyncio.wait(
        waiting, timeout=max(0.0, ticket.deadline - time.monotonic()), return_when=asyncio.FIRST_COMPLETED
    )
