"""A sandbox whose python3 forges the guest's answers, as drawn by hypothesis.

An agent with root can do the same: another ``python3`` is first on the sandbox's PATH, reads each request, and prints
an answer with the request's nonce.
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

# Without a forged answer it prints the real one, and keeps a copy.
_PYTHON3 = """#!/usr/bin/python3 -ISE
import base64, os, subprocess, sys, zlib
e = os.environ
name = "LANGCHAIN_DAYTONA_WS_REQUEST%d"
request = "".join(e[name % i] for i in range(99) if name % i in e)
nonce = eval(request if request[0] == "{" else zlib.decompress(base64.b64decode(request)))["nonce"]
if not os.path.exists("/tmp/forgeries/forged"):
    answer = subprocess.run(["/usr/bin/python3", *sys.argv[1:]], stdout=subprocess.PIPE).stdout
    open("/tmp/forgeries/real", "wb").write(answer.replace(nonce.encode(), b"NONCE"))
else:
    answer = open("/tmp/forgeries/forged", "rb").read().replace(b"NONCE", nonce.encode())
while answer:
    answer = answer[os.write(1, answer):]
"""


def examples(count: int) -> settings:
    """Return settings for this number of examples, on a hunt (see conftest.py) twenty times as many."""
    most = count * 20 if settings.get_current_profile_name() == "hunt" else count
    return settings(max_examples=most, suppress_health_check=list(HealthCheck))


class InstantClock:
    """A clock that skips waits."""

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
    """Call a tool as an agent does, asynchronously if a runner is given."""
    call = {"type": "tool_call", "id": "call-1", "name": tool.name, "args": args}
    message = runner.run(tool.ainvoke(call)) if runner else tool.invoke(call)
    assert isinstance(message, ToolMessage)
    return message


class ForgingSandbox:
    """A session and its sandbox, whose answers can be forged.

    Args:
        server: The sandbox's server.
    """

    def __init__(self, server: LocalDaytona) -> None:
        path = "/tmp/forgeries:/usr/local/bin:/usr/bin:/bin"
        settings = config_for(server, envVars={"PATH": path}, outputLimitBytes=4096)
        self.session = WorkspaceSession(settings, namespace="forgeries", clock=InstantClock())
        self.session.run(":")  # creates the sandbox
        self._folder = server.sandboxes[0].folder / "disk" / "tmp" / "forgeries"
        self._folder.mkdir()
        self._folder.chmod(0o777)  # for the sandbox's user
        self._forged = self._folder / "forged"
        program: Path = self._folder / "python3"
        program.write_text(_PYTHON3, encoding="utf-8")
        program.chmod(0o755)

    def answer_with(self, answer: object) -> None:
        """Answer the next requests with this as JSON, with bytes unchanged; None: with the real answers."""
        if answer is None:
            self._forged.unlink(missing_ok=True)
            return
        is_raw = isinstance(answer, bytes)
        self._forged.write_bytes(answer if is_raw else b"NONCE " + json.dumps(answer).encode() + b"\n")

    def real_answer(self) -> dict[str, Any]:
        """Return the last real answer."""
        answer = (self._folder / "real").read_bytes()
        frame = next(line for line in answer.split(b"\n") if line.startswith(b"NONCE "))
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
def forgeries(draw: st.DrawFn, real: Any) -> Any:
    """Draw an answer that differs from the real one in at most three parts."""
    forged = {"root": copy.deepcopy(real)}
    for _ in range(draw(st.integers(1, 3))):
        parts = list(_parts(forged))
        where, key = parts[draw(st.integers(0, len(parts) - 1))]
        if draw(st.integers(0, 4)) == 0 and where is not forged:
            del where[key]
        else:
            where[key] = draw(junk)
    return forged["root"]


def _parts(value: Any) -> list[tuple[Any, Any]]:
    """Return the replaceable parts, each as (container, key)."""
    keys = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
    found = [(value, key) for key in keys]
    return found + [part for _, key in found for part in _parts(value[key])]
