"""The optional dependencies of commands."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def require_extra(extra: str, *modules: str) -> Iterator[None]:
    """If one of ``modules``, the extra's top-level modules, is not installed, print which extra to install and exit."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in modules:
            raise
        sys.stderr.write(
            f"langchain-daytona-ws: {missing} is not installed. "
            f"Install the extra `{extra}`: pip install 'langchain-daytona-ws[{extra}]'\n"
        )
        raise SystemExit(1) from None
