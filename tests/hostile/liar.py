"""A sandbox whose python3 says what it likes, and lies drawn by hypothesis.

It lies where an agent with root can: its own ``python3`` stands first on the sandbox's PATH, reads each request, and
prints an answer behind the nonce that the request holds.
"""

from __future__ import annotations

import asyncio
import copy
import json
import time
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool

from langchain_daytona_ws import WorkspaceSession
from langchain_daytona_ws.local import LocalDaytona
from tests.integration_tests.conftest import config_for

# Without a lie it passes on what the real one says, and keeps a copy.
_LIAR = """#!/usr/bin/python3 -ISE
import base64, os, subprocess, sys, zlib
e = os.environ
name = "LANGCHAIN_DAYTONA_WS_REQUEST"
parts = "".join(e[name + str(i)] for i in range(int(e[name])))
nonce = eval(zlib.decompress(base64.b64decode(parts)))["nonce"]
if not os.path.exists("/tmp/lies/lie"):
    told = subprocess.run(["/usr/bin/python3", *sys.argv[1:]], stdout=subprocess.PIPE).stdout
    open("/tmp/lies/truth", "wb").write(told.replace(nonce.encode(), b"NONCE"))
else:
    told = open("/tmp/lies/lie", "rb").read().replace(b"NONCE", nonce.encode())
while told:
    told = told[os.write(1, told):]
"""


def examples(count: int) -> settings:
    """Draw so many, and twenty times as many on a hunt (see conftest.py); each may take its time."""
    most = count * 20 if settings.get_current_profile_name() == "hunt" else count
    return settings(max_examples=most, deadline=None, suppress_health_check=list(HealthCheck))


class Eager:
    """A clock on which waiting takes no time."""

    def __init__(self) -> None:
        self.slept_s = 0.0

    def time(self) -> float:
        return time.time() + self.slept_s

    def monotonic(self) -> float:
        return time.monotonic() + self.slept_s

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds

    async def asleep(self, seconds: float) -> None:
        self.slept_s += seconds


def answer_of(tool: BaseTool, args: dict[str, Any], runner: asyncio.Runner | None = None) -> ToolMessage:
    """Call a tool as an agent does, through its async face if there is a runner for it."""
    call = {"type": "tool_call", "id": "call-1", "name": tool.name, "args": args}
    message = runner.run(tool.ainvoke(call)) if runner else tool.invoke(call)
    assert isinstance(message, ToolMessage)
    return message


class LyingSandbox:
    """A session over a sandbox whose answers can be exchanged.

    Args:
        server: Where it is.
    """

    def __init__(self, server: LocalDaytona) -> None:
        path = "/tmp/lies:/usr/local/bin:/usr/bin:/bin"
        settings = config_for(server, envVars={"PATH": path}, outputLimitBytes=4096)
        self.session = WorkspaceSession(settings, namespace="lies", clock=Eager())
        self.session.run(":")  # while nobody lies yet
        self._place = server.sandboxes[0].folder / "disk" / "tmp" / "lies"
        self._place.mkdir()
        self._place.chmod(0o777)  # the sandbox's user is not ours
        self._lie = self._place / "lie"
        liar: Path = self._place / "python3"
        liar.write_text(_LIAR, encoding="utf-8")
        liar.chmod(0o755)

    def say(self, answer: object) -> None:
        """Answer the next requests with this, as JSON; bytes as they are, None with the truth."""
        if answer is None:
            self._lie.unlink(missing_ok=True)
            return
        told = answer if isinstance(answer, bytes) else b"NONCE " + json.dumps(answer).encode() + b"\n"
        self._lie.write_bytes(told)

    def truth(self) -> dict[str, Any]:
        """Return what was last answered truthfully."""
        told = (self._place / "truth").read_bytes()
        frame = next(line for line in told.split(b"\n") if line.startswith(b"NONCE "))
        return dict(json.loads(frame[6:]))


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 0, 2**31, 2**63, 10**30, 10**400])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        [
            "\ud800",
            "\x1b]0;forged\x07",
            "a\nexit code 0]",
            "../../etc/passwd",
            "\u202e",
            "x" * 300_000,
            "QQ==",
            "QQ",
        ]
    )
)
junk = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)


@st.composite
def lies(draw: st.DrawFn, truth: Any) -> Any:
    """Draw an answer that is like the true one, but for up to three of its parts."""
    lie = {"root": copy.deepcopy(truth)}
    for _ in range(draw(st.integers(1, 3))):
        spots = list(_spots(lie))
        where, key = spots[draw(st.integers(0, len(spots) - 1))]
        if draw(st.integers(0, 4)) == 0 and where is not lie:
            del where[key]
        else:
            where[key] = draw(junk)
    return lie["root"]


def _spots(value: Any) -> list[tuple[Any, Any]]:
    """List where something stands that can be exchanged: each (container, key)."""
    keys = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
    found = [(value, key) for key in keys]
    return found + [spot for _, key in found for spot in _spots(value[key])]
