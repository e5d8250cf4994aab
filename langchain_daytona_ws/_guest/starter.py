"""Create the modules of a call. This is the first module in the file of compiled modules that the sandbox keeps."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any, Iterable

    Call = dict[str, Any]

PACKAGE = "langchain_daytona_ws._guest"
# `begin` of these modules is called at once, so that its work goes on while the other modules are compiled or loaded.
EARLY = ("mount", "sync")


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
