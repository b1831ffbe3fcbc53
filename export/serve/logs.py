"""The log as lines of JSON, for programs that collect logs."""

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from attunet.system.log_lines import LOGGER


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, and its text or the facts of a request."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        facts = getattr(record, "request", None)
        message = {"event": "request", **facts} if facts else {"message": record.getMessage()}
        return json.dumps({"time": f"{at}.{int(record.msecs):03d}Z", "level": record.levelname.lower(), **message})


@contextmanager
def json_log() -> Iterator[None]:
    """Prints the log as JSON instead of plain lines while the context is open."""
    handler, plain = logging.StreamHandler(sys.stdout), list(LOGGER.handlers)
    handler.setFormatter(JsonFormatter())
    LOGGER.handlers[:] = [handler]
    try:
        yield
    finally:
        LOGGER.handlers[:] = plain
