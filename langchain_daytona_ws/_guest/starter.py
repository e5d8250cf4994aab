"""Create the modules of a call. In the file that the sandbox keeps, this is the first of the compiled modules."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any, Iterable

    Call = dict[str, Any]

PACKAGE = "langchain_daytona_ws._guest"
EARLY = ("mount", "sync")  # call `begin` of these modules at once: its work goes on during compilation


def start(modules: Iterable[tuple[str, CodeType]], call: Call) -> Any:
    """Create modules in the given order; return the last one."""
    module = package = sys.modules[PACKAGE] = type(sys)(PACKAGE)
    for name, code in modules:
        full = "%s.%s" % (PACKAGE, name)
        module = sys.modules[full] = type(sys)(full)
        exec(code, module.__dict__)  # noqa: S102 - sent by the host
        setattr(package, name, module)
        if name in EARLY:
            module.begin(call["request"][name])
    return module
