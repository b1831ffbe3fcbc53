"""State that the routes of one server share: models, queue, folder, counters."""

import asyncio
from collections.abc import Mapping

from attunet.export.serve.metrics import Metrics
from attunet.export.serve.refusal import UNAVAILABLE, Refusal
from attunet.export.serve.scans.upload import SpaceLeft
from attunet.export.serve.settings import MB, Settings
from attunet.export.serve.work.queue import READ_AHEAD, WorkQueue
from attunet.export.serve.work.served_model import ServedModel
from attunet.system.private_folder import PrivateFolder


class Service:
    """One server's state: models, queue, counters, folder for uploads, budgets of bytes for bodies and for answers."""

    def __init__(self, settings: Settings, models: Mapping[str, ServedModel], folder: PrivateFolder) -> None:
        self.settings, self.models, self.folder = settings, models, folder
        self.metrics = Metrics(models.values())
        self.queue = WorkQueue(workers=settings.workers, max_waiting=settings.max_queue, metrics=self.metrics)
        # As many bodies of the largest size as the queue holds, and one that comes in.
        self.space = SpaceLeft((settings.max_queue + settings.workers + READ_AHEAD + 1) * settings.max_mb * MB)
        self.answers = SpaceLeft(settings.max_memory_mb * MB)  # in memory until their clients have read them
        self.ending = asyncio.Event()  # set when a signal came; nothing new is begun then

    def model(self, name: str) -> ServedModel:
        """Raises Refusal with status 404 for a name that is not served."""
        if name not in self.models:
            raise Refusal(404, f"model: {', '.join(self.models)} is served here, not {name[:80]!r}")
        return self.models[name]

    def check_running(self) -> None:
        """Raises Refusal with status 503 once the server stops."""
        if self.ending.is_set():
            raise Refusal(UNAVAILABLE, "the server stops", retry_after=10)
