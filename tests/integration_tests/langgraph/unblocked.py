"""Use all that is async under a detector of blocking calls: `python -m … SCENE`, the configuration as JSON on stdin."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from blockbuster import blockbuster_ctx
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

from langchain_daytona_ws import (
    InterruptApprover,
    PermissionDecision,
    WorkspacePool,
    WorkspaceSession,
    WorkspaceToolkit,
)


async def tools(config: dict[str, Any]) -> None:
    """Call each tool as an agent does, from the first on."""
    async with WorkspaceSession(config, namespace="demo") as session:
        bash, file, job = WorkspaceToolkit(session=session).get_tools()
        await use(file, action="write", path="a.txt", content="one\n" * 100_000)
        await use(bash, command="echo hello")
        for more in (
            {"action": "read", "path": "a.txt"},
            {"action": "grep", "pattern": "one"},
            {"action": "glob", "pattern": "*"},
            {"action": "write", "path": "b.txt", "content": "old\n"},
            {"action": "edit", "path": "b.txt", "old_string": "old", "new_string": "new"},
            {"action": "delete", "path": "b.txt"},
        ):
            await use(file, **more)
        started = await use(bash, command="sleep 600", background=True)
        await use(job, action="list")
        await use(job, action="logs", job_id=started["id"])
        await use(job, action="stop", job_id=started["id"])


async def use(tool: Any, **args: Any) -> Any:
    message = await tool.ainvoke({"type": "tool_call", "id": f"{args}", "name": tool.name, "args": args})
    assert message.status == "success", message.content
    return message.artifact


async def pool(config: dict[str, Any]) -> None:
    """Use the tools of a pool that closes one session for another."""
    async with WorkspacePool(config, max_sessions=1) as own:
        bash = WorkspaceToolkit(pool=own).bash
        for thread in ("a", "b", "a"):
            call = {"type": "tool_call", "id": thread, "name": "bash", "args": {"command": "true"}}
            message = await bash.ainvoke(call, {"configurable": {"thread_id": thread}})
            assert message.status == "success", message.content
        await own.arelease("b")


async def session(config: dict[str, Any]) -> None:
    """Call the session's own methods."""
    async with WorkspaceSession(config, namespace="demo") as own:
        seen: list[str] = []
        assert (await own.arun("echo hello", on_output=seen.append)).output == "hello\n"
        await own.files.awrite("d/a.txt", "a\n")
        assert (await own.files.aread("d/a.txt")).lines
        await own.files.aedit("d/a.txt", "a", "b")
        assert await own.files.alist("d")
        assert await own.files.aglob("**/*.txt")
        assert await own.files.agrep("b", output_mode="content")
        started = await own.jobs.astart("sleep 600")
        assert (await own.jobs.alist())[0].id == started.id
        await own.jobs.astop(started.id)
        await own.files.adelete("d/a.txt")
        await own.arelease()


async def approvals(config: dict[str, Any]) -> None:
    """Ask each kind of approver."""

    async def awaited(request: Any) -> PermissionDecision:
        await asyncio.sleep(0)
        return PermissionDecision.allow()

    config = {**config, "permissionMode": "ask"}
    for approver in (lambda request: PermissionDecision.allow(), awaited):
        async with WorkspaceSession(config, namespace="demo", approver=approver) as own:
            await use(WorkspaceToolkit(session=own).get_tools()[0], command="echo")
    async with WorkspaceSession(config, namespace="demo", approver=InterruptApprover()) as own:
        await through_a_graph(own)


async def through_a_graph(own: WorkspaceSession) -> None:
    node = ToolNode(WorkspaceToolkit(session=own).get_tools())
    graph: Any = StateGraph(MessagesState).add_node("tools", node).add_edge(START, "tools")
    graph = graph.compile(checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "one"}}
    calls = [{"name": "bash", "args": {"command": f"echo {n}"}, "id": f"{n}"} for n in range(2)]
    state = await graph.ainvoke({"messages": [AIMessage("", tool_calls=calls)]}, thread)
    while "__interrupt__" in state:
        state = await graph.ainvoke(Command(resume={"decisions": [{"type": "approve"}]}), thread)
    assert [message.status for message in state["messages"][1:]] == ["success"] * 2


async def blocking(config: dict[str, Any]) -> None:
    """Use the sync methods, which block."""
    with WorkspaceSession(config, namespace="demo") as own:
        own.run("echo")


SCENES = {scene.__name__: scene for scene in (tools, session, approvals, pool, blocking)}

if __name__ == "__main__":
    given = json.load(sys.stdin)
    with blockbuster_ctx():  # also in called functions
        asyncio.run(SCENES[sys.argv[1]](given))
    print("done")
