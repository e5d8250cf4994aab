"""The recorded scenarios, with assertions that hold for the recording and the replay."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_daytona_ws import (
    BashTool,
    FileMissing,
    PermissionDecision,
    PermissionRequest,
    WorkspaceFileTool,
    WriteConflict,
)
from tests.cassettes.stage import Scenario, Stage

BIG = "0123456789abcde\n" * 20_000


async def command(stage: Stage) -> None:
    """The first command creates the sandbox, and closing the session deletes it."""
    session = stage.session()
    first = await stage.do(session, "run", "echo one; echo two >&2; pwd")
    assert (first.exit_code, first.output) == (0, f"one\ntwo\n{session.root}\n")
    failed = await stage.do(session, "run", "echo 'grüße' | tee note.txt; exit 3", timeout_s=20)
    assert (failed.exit_code, failed.output) == (3, "grüße\n")
    again = await stage.do(session, "run", "date +%N >> ran; wc -l < ran", idempotency_key="callone")
    same = await stage.do(session, "run", "date +%N >> ran; wc -l < ran", idempotency_key="callone")
    assert (again.output, again.from_record, same.output, same.from_record) == ("1\n", False, "1\n", True)
    await stage.do(session, "close")


async def files(stage: Stage) -> None:
    """All file operations on the sandbox's own disk, with large content and refusals."""
    session = stage.session()
    ops = session.files
    assert (await stage.do(ops, "write", "src/app.py", "import os\nprint(os.name)\n")).created
    assert "print(os.name)" in (await stage.do(ops, "read", "src/app.py")).body
    assert (await stage.do(ops, "edit", "src/app.py", "os.name", "os.sep")).count == 1
    assert (await stage.do(ops, "write", "data/big.txt", BIG)).size_bytes == len(BIG)
    assert [entry.name for entry in (await stage.do(ops, "glob", "**/*.py")).entries] == ["src/app.py"]
    assert "os.sep" in str(await stage.do(ops, "grep", r"os\.\w+", output_mode="content"))
    assert "src" in str(await stage.do(ops, "list", "."))
    with pytest.raises(FileMissing):
        await stage.do(ops, "read", "none.txt")
    await stage.do(session, "run", "echo changed > src/app.py")
    with pytest.raises(WriteConflict):
        await stage.do(ops, "write", "src/app.py", "mine\n")
    await stage.do(ops, "delete", "data/big.txt")
    await stage.do(session, "close")


async def denied(stage: Stage) -> None:
    """A denied call sends nothing and creates no sandbox; an allowed call is sent as approved."""
    asked: list[PermissionRequest] = []

    def approver(request: PermissionRequest) -> PermissionDecision:
        asked.append(request)
        return PermissionDecision.deny("not now") if len(asked) == 1 else PermissionDecision.allow()

    session = stage.session(permissionMode="ask", approver=approver)
    bash, file = BashTool(session=session), WorkspaceFileTool(session=session)
    refused = await _called(stage, bash, "call_1", command="rm -rf data")
    assert refused.status == "error"
    assert "not now" in refused.content
    assert session.sandbox_id is None
    allowed = await _called(stage, file, "call_2", action="write", path="a.txt", content="a\n")
    assert allowed.status == "success"
    assert "a\n" in (await _called(stage, bash, "call_3", command="cat a.txt")).content
    await stage.do(session, "close")


async def job(stage: Stage) -> None:
    """Background jobs: a job that finishes, and a job that is stopped."""
    session = stage.session()
    jobs = session.jobs
    short = await stage.do(jobs, "start", "echo from the job; exit 4", max_duration_s=60)
    ended = await stage.do(jobs, "join", short.id)
    assert (ended.state, ended.exit_code) == ("finished", 4)
    assert (await stage.do(jobs, "logs", short.id)).output == "from the job\n"
    long = await stage.do(jobs, "start", "exec sleep 600", max_duration_s=900)
    assert (await stage.do(jobs, "status", long.id)).is_running
    assert (await stage.do(jobs, "stop", long.id)).state == "stopped"
    assert {job.id for job in await stage.do(jobs, "list")} == {short.id, long.id}
    await stage.do(session, "close")


async def reconnect(stage: Stage) -> None:
    """A persistent sandbox outlives its session, is found by name, restarted after a stop, and released."""
    first = stage.session(persistent=True)
    await stage.do(first, "run", "echo kept > note.txt")
    sandbox_id = first.sandbox_id
    await stage.do(first, "close")
    second = stage.session(persistent=True)
    assert (await stage.do(second, "run", "cat note.txt")).output == "kept\n"
    assert second.sandbox_id == sandbox_id
    await stage.do(second, "close")
    assert sandbox_id is not None
    stage.stop_sandbox(sandbox_id)
    third = stage.session(persistent=True)
    woken = await stage.do(third, "run", "cat note.txt")
    assert woken.output == "kept\n"
    assert third.sandbox_id == sandbox_id
    assert woken.notices
    await stage.do(third, "release")


async def role(stage: Stage) -> None:
    """An S3 workspace, mounted with the credentials of a role: assumed once, delivered once."""
    session = stage.session()
    written = await stage.do(session, "run", "mkdir -p out && echo from the sandbox > out/a.txt && ls out")
    assert (written.exit_code, written.output) == (0, "a.txt\n")
    assert (await stage.do(session, "run", "cat out/a.txt")).output == "from the sandbox\n"
    assert "from the sandbox" in (await stage.do(session.files, "read", "out/a.txt")).body
    await stage.do(session, "run", "rm -r out")
    await stage.do(session, "close")


async def s3(stage: Stage) -> None:
    """File operations on S3 without a sandbox; each change is a conditional request."""
    session = stage.session(options={"fileAccess": "s3"})
    ops = session.files
    assert (await stage.do(ops, "write", "notes/a.md", "# One\n")).created
    assert "# One" in (await stage.do(ops, "read", "notes/a.md")).body
    assert (await stage.do(ops, "edit", "notes/a.md", "One", "Two")).count == 1
    assert (await stage.do(ops, "write", "notes/a.md", "# Three\n")).created is False
    assert "# Three" in str(await stage.do(ops, "grep", "Three", path="notes/a.md", output_mode="content"))
    assert "notes" in str(await stage.do(ops, "list", "."))
    with pytest.raises(WriteConflict):
        await stage.do(stage.session(options={"fileAccess": "s3"}).files, "write", "notes/a.md", "blind\n")
    with pytest.raises(FileMissing):
        await stage.do(ops, "read", "none.md")
    await stage.do(ops, "delete", "notes/a.md")
    await stage.do(session, "close")
    assert session.sandbox_id is None


async def _called(stage: Stage, tool: Any, call_id: str, **arguments: Any) -> Any:
    request = {"type": "tool_call", "id": call_id, "name": tool.name, "args": arguments}
    return await stage.do(tool, "invoke", request, {"configurable": {"thread_id": "thread"}})


SCENARIOS: dict[str, Scenario] = {
    scenario.__name__: scenario for scenario in (command, files, denied, job, reconnect, role, s3)
}
ON_S3 = {"role", "s3"}
