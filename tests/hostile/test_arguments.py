"""Random arguments: every tool call returns a tool message, and changes nothing outside of the workspace."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool

from langchain_daytona_ws import WorkspaceSession, WorkspaceToolkit
from langchain_daytona_ws.local import LocalDaytona
from tests.hostile.forged import InstantClock, answer_of, examples, junk
from tests.integration_tests.conftest import config_for

PATHS = st.sampled_from([
    "../x", "/etc/passwd", "a/../../x", "~/x", "a\0b", "\ud800", "-rf", "a\nb", "/mnt/workspaces/hostile/../other/x",
    "x" * 5000, "link/passwd", ".", "", "$(touch /tmp/x)", "*", "[", "**/" * 200 + "x", "\x1b[2J",
    "$'\\xe9'", "$'caf\\xe9.txt'", "$'\\ud800'", "C:\\x", "file:///x", "link\\passwd", "A.TXT", "d/",
])  # fmt: skip
PATTERNS = st.sampled_from(
    ["(a+)+$", "(", "[", "a{99999}", "\\", "(?P<n>x)(?P=n)", "\ud800", "a\0", "x" * 70_000]
)
HOSTILE = junk | PATHS | PATTERNS
ARGUMENTS = {
    "bash": ("command", "timeout", "background", "hours", "description"),
    "workspace_file": (
        "path", "content", "overwrite", "old_string", "new_string", "replace_all", "offset", "limit", "pattern",
        "glob", "output_mode", "context", "ignore_case",
    ),
    "bash_job": ("action", "job_id", "offset", "tail"),
}  # fmt: skip
ACTIONS = ["read", "write", "edit", "list", "glob", "grep", "delete", "READ", "", None]


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Draw a tool call with some valid arguments."""
    tool = draw(st.sampled_from(sorted(ARGUMENTS)))
    args = draw(st.dictionaries(st.sampled_from(ARGUMENTS[tool]) | st.text(max_size=3), HOSTILE, max_size=4))
    if tool == "workspace_file":
        args["command"] = draw(st.sampled_from(ACTIONS))
        plain = {"path": "a.txt", "content": "x", "old_string": "o", "new_string": "p", "pattern": "o"}
        for name, value in plain.items():
            if draw(st.booleans()):
                args[name] = value
        for name in ("path", "pattern", "glob"):
            if draw(st.integers(0, 3)) == 0:
                args[name] = draw(PATHS | PATTERNS)
    elif tool == "bash_job" and draw(st.booleans()):
        args["action"] = draw(st.sampled_from(["status", "logs", "stop", "list"]))
    elif tool == "bash" and not draw(st.booleans()):
        args["command"] = draw(
            st.sampled_from(["true", "exit 7", "echo \\", "'", "if", "<<E", "\0", "\ud800", "  "])
        )
    return tool, args


class World:
    def __init__(self, server: LocalDaytona) -> None:
        self.session = WorkspaceSession(config_for(server), namespace="hostile", clock=InstantClock())
        self.tools: dict[str, BaseTool] = {
            tool.name: tool for tool in WorkspaceToolkit(session=self.session).get_tools()
        }
        self.session.run("echo one > a.txt; ln -s /etc link; mkdir ../other; echo theirs > ../other/x")
        self.runner = asyncio.Runner()

    def call(self, tool: str, args: dict[str, Any], *, asynchronous: bool) -> ToolMessage:
        return answer_of(self.tools[tool], args, self.runner if asynchronous else None)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with LocalDaytona() as server:
        made = World(server)
        yield made
        made.runner.run(made.session.aclose())
        made.runner.close()
        assert server.sandboxes == []


@given(call=calls(), asynchronous=st.booleans())
@examples(60)
def test_any_call_is_answered(world: World, call: tuple[str, dict[str, Any]], asynchronous: bool) -> None:
    message = world.call(*call, asynchronous=asynchronous)
    assert isinstance(message.content, str)
    assert message.content
    message.content.encode("utf-8")
    json.dumps(message.artifact, ensure_ascii=False).encode("utf-8")
    assert "Traceback" not in message.content
    if message.status == "error":
        assert "/mnt/workspaces" not in message.content.replace("/mnt/workspaces/hostile/../other/x", "")


def test_files_outside_the_workspace_are_unchanged(world: World) -> None:
    for path in ("../other/x", "a/../../other/x", "link/../../other/x", "link/passwd"):
        for args in (
            {"action": "read"},
            {"action": "write", "content": "mine", "overwrite": True},
            {"action": "edit", "old_string": "theirs", "new_string": "mine"},
            {"action": "delete"},
        ):
            message = world.call("workspace_file", {**args, "path": path}, asynchronous=False)
            assert message.status == "error", (path, args)
    args = {"action": "write", "path": "/mnt/workspaces/other/x", "content": "mine"}
    assert world.call("workspace_file", args, asynchronous=False).status == "error"
    assert world.session.run("cat ../other/x; ls mnt").output.startswith("theirs\nls: ")


def test_a_name_that_is_not_utf8_is_sent_back_as_it_was_shown(world: World) -> None:
    name = r"$'caf\xe9.txt'"
    world.session.run(f"mkdir -p odd; cp a.txt odd/{name}")
    requests: list[dict[str, Any]] = [
        {"action": "list", "path": "odd"},
        {"action": "glob", "pattern": "odd/*"},
        {"action": "read", "path": f"odd/{name}"},
        {"action": "grep", "pattern": "one", "path": f"odd/{name}"},
        {"action": "edit", "path": f"odd/{name}", "old_string": "one", "new_string": "two"},
        {"action": "write", "path": f"odd/{name}", "content": "three"},
        {"action": "delete", "path": r"$'odd/caf\xe9.txt'"},
    ]
    for args in requests:
        message = world.call("workspace_file", args, asynchronous=False)
        assert message.status == "success", message.content
        json.dumps(message.artifact, ensure_ascii=False).encode("utf-8")
    assert world.session.run("ls odd").output == ""
