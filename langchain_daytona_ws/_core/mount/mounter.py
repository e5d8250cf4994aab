"""The mounter as one program: its modules written out one behind the other."""

from __future__ import annotations

import functools
import json
import re

from langchain_daytona_ws._core.guest_rpc.payload import PACKAGE, guest_source

_MODULES = ("mount_request", "mount_keys", "mount_check", "mounter")
_IMPORT = re.compile(rf"^from {re.escape(PACKAGE)}\.\w+ import (?:\([^)]*\)|[^\n]*)\n", re.MULTILINE)
_FUTURE = "from __future__ import annotations\n"


@functools.cache
def mounter_source(workspaces: str = "", skills: str = "") -> str:
    """Return the program that root runs to mount a workspace.

    Args:
        workspaces: As the helper of a snapshot: the only directory below which it mounts workspaces; ``""`` where
            it is sent along with a call.
        skills: As the helper: the only directory at which it mounts skills.
    """
    text = "\n\n".join(_IMPORT.sub("", guest_source(name)) for name in _MODULES)
    # Python takes it at the beginning only.
    before, future, after = text.partition(_FUTURE)
    text = before + future + after.replace(_FUTURE, "")
    for name, value in (("WORKSPACES", workspaces), ("SKILLS", skills)):
        head, line, tail = text.partition(f'\n{name} = ""\n')
        text = f"{head}{line and f'{chr(10)}{name} = {json.dumps(value)}{chr(10)}'}{tail}"
    return text
