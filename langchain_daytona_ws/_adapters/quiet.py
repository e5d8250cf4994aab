"""Keep botocore's debug log quiet about our requests: it writes out their headers and bodies, tokens included."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_here = threading.local()


def _is_loud(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG or not getattr(_here, "quiet", False)


@contextmanager
def unlogged() -> Iterator[None]:
    """Drop what botocore logs for debugging in this thread."""
    # A logger's filter does not hold for those below it; and new ones come with each module that is imported.
    for name in logging.root.manager.loggerDict.copy():
        if name.partition(".")[0] == "botocore":
            logger = logging.getLogger(name)
            if _is_loud not in logger.filters:
                logger.addFilter(_is_loud)
    before, _here.quiet = getattr(_here, "quiet", False), True
    try:
        yield
    finally:
        _here.quiet = before
