"""Suppress botocore's debug log, which has headers and bodies of requests, tokens included."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_here = threading.local()
_filtered = {"loggers": 0}  # how many loggers there were when the filters were last set


def _is_loud(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG or not getattr(_here, "quiet", False)


@contextmanager
def unlogged() -> Iterator[None]:
    """Suppress botocore's debug records in this thread."""
    # A filter does not apply to child loggers, and each imported module adds loggers. Loggers are never removed.
    loggers = logging.root.manager.loggerDict
    if len(loggers) != _filtered["loggers"]:
        names = list(loggers.copy())
        for name in names:
            if name.partition(".")[0] == "botocore":
                logger = logging.getLogger(name)
                if _is_loud not in logger.filters:
                    logger.addFilter(_is_loud)
        _filtered["loggers"] = len(names)
    before, _here.quiet = getattr(_here, "quiet", False), True
    try:
        yield
    finally:
        _here.quiet = before
