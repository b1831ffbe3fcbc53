"""State that the routes of one server share: models, queue, folder, counters."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from attunet.export.serve.metrics import Metrics
from attunet.export.serve.refusal import UNAVAILABLE, Refusal
from attunet.export.serve.scans.private_folder import PrivateFolder
from attunet.export.serve.scans.upload import SpaceLeft
from attunet.export.serve.settings import MB, Settings
from attunet.export.serve.work.queue import READ_AHEAD, WorkQueue
from attunet.export.serve.work.served_model import ServedModel


@dataclass(eq=False)
class Service:
    """One server's state.

    Args:
        space: for bodies on the disk. answers: for answers in memory until their clients have read them.
        ending: set when a signal came; nothing new is begun then.
    """

    settings: Settings
    models: Mapping[str, ServedModel]
    folder: PrivateFolder
    metrics: Metrics = field(init=False)
    queue: WorkQueue = field(init=False)
    space: SpaceLeft = field(init=False)
    answers: SpaceLeft = field(init=False)
    ending: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        limits = self.settings
        self.metrics = Metrics(self.models.values())
        self.queue = WorkQueue(workers=limits.workers, max_waiting=limits.max_queue, metrics=self.metrics)
        # As many bodies of the largest size as the queue holds, and one that comes in.
        self.space = SpaceLeft((limits.max_queue + limits.workers + READ_AHEAD + 1) * limits.max_mb * MB)
        self.answers = SpaceLeft(limits.max_memory_mb * MB)

    def model(self, name: str) -> ServedModel:
        """Raises Refusal with status 404 for a name that is not served."""
        if name not in self.models:
            raise Refusal(404, f"model: {', '.join(self.models)} is served here, not {name[:80]!r}")
        return self.models[name]

    def check_running(self) -> None:
        """Raises Refusal with status 503 once the server stops."""
        if self.ending.is_set():
            raise Refusal(UNAVAILABLE, "the server stops", retry_after=10)
