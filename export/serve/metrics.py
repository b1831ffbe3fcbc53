"""Counts and times for Prometheus. Labels come from the server alone, never from a request."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

from attunet.export.serve.work.served_model import ServedModel
from attunet.version import __version__

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """A registry of this server's own, so that several servers in one process do not share counts."""

    def __init__(self, models: Iterable[ServedModel]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        place, failed = ("route", "model"), "Requests that got no answer of status 2xx"
        self.requests = Counter("attunet_requests", "Answered requests", (*place, "status"), registry=self.registry)
        self.failures = Counter("attunet_failures", failed, (*place, "reason"), registry=self.registry)
        self.seconds = Histogram(
            "attunet_stage_seconds", "Seconds by stage", ("model", "stage"), buckets=SECONDS, registry=self.registry
        )
        self.waiting = Gauge("attunet_queue_waiting", "Scans that wait", registry=self.registry)
        self.running = Gauge("attunet_queue_running", "Scans that are worked on", registry=self.registry)
        self.open_requests = Gauge("attunet_open_requests", "Open requests", registry=self.registry)
        about = Info("attunet_server", "The server", registry=self.registry)
        about.info({"version": __version__})
        served = Info("attunet_model", "Served models", ("model",), registry=self.registry)
        for model in models:
            described = model.describe()
            served.labels(model.name).info(
                {"sha256": described["sha256"], "precision": described["precision"], "provider": described["provider"]}
            )
