"""A session on an S3 workspace: its files need no sandbox, and no change of another's is lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from langchain_daytona_ws import SessionClosed, WorkspaceSession, WriteConflict
from langchain_daytona_ws.local import LocalDaytona
from tests.integration_tests.conftest import Driven, config_for
from tests.integration_tests.s3 import KEYS, Bucket, bucket, host_keys, s3_options
from tests.integration_tests.test_tools import read_the_log

__all__ = ["bucket", "host_keys"]  # fixtures

OpenSession = Callable[..., Driven]
EDITS = 100


@pytest.mark.usefixtures("host_keys")
def test_reading_and_editing_provisions_nothing(bucket: Bucket, open_session: OpenSession) -> None:
    bucket.put("src/old.py", b"x = 1\n")
    workspace = bucket.session(open_session, role=True)
    tool = workspace.file
    assert "x = 1" in workspace.call(tool, action="read", path="src/old.py").content
    changes: list[dict[str, Any]] = [
        {"action": "edit", "path": "src/old.py", "old_string": "1", "new_string": "2"},
        {"action": "write", "path": "src/new.py", "content": "y = 3\n"},
        {"action": "list", "path": "src"},
        {"action": "glob", "pattern": "**/*.py"},
        {"action": "grep", "pattern": "y = ."},
        {"action": "delete", "path": "src/new.py"},
    ]
    for number, change in enumerate(changes):
        message = workspace.call(tool, tool_call_id=f"call_{number}", **change)
        assert message.status == "success", message.content
    log = f"/tmp/.langchain-daytona-ws-1000/{'0' * 32}.log"
    for path in ("/repo/src/old.py", "~/x", "src\\old.py", "src/Old.py", log):
        assert workspace.call(tool, action="read", path=path).status == "error"
    assert bucket.get("src/old.py") == b"x = 2\n"
    assert bucket.paths() == ["src/old.py"]
    assert bucket.server.requests == []


def test_the_log_of_a_command_is_read_in_the_sandbox(bucket: Bucket, open_session: OpenSession) -> None:
    read_the_log(bucket.session(open_session))


def test_no_daytona_key_and_no_sdk_is_needed_for_files(bucket: Bucket) -> None:
    program = f"""
        import sys
        from langchain_daytona_ws import WorkspaceSession
        config = {{"options": {s3_options(bucket.server, bucket.name)!r}, "envVars": {KEYS!r}}}
        with WorkspaceSession(config, namespace={bucket.namespace!r}) as session:
            session.files.write("f.txt", "written")
            assert session.files.read("f.txt").lines == 1
        assert "daytona" not in sys.modules
    """
    environment = {"PATH": "/usr/bin:/bin", "NO_PROXY": "127.0.0.1"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=environment, check=True)
    assert bucket.get("f.txt") == b"written"


def test_bash_and_files_see_each_other_at_once(bucket: Bucket, open_session: OpenSession) -> None:
    workspace = bucket.session(open_session)
    workspace.files("write", "a.txt", "from files\n")
    assert workspace.run("cat a.txt; echo from bash > b.txt").output == "from files\n"
    assert "from bash" in workspace.files("read", "b.txt").body
    workspace.run("echo changed by bash > a.txt")
    with pytest.raises(WriteConflict):
        workspace.files("write", "a.txt", "from files, not having seen it")
    workspace.files("read", "a.txt")
    workspace.files("write", "a.txt", "having seen it\n")
    assert workspace.run("cat a.txt").output == "having seen it\n"


@pytest.mark.parametrize("access", ["s3", "sandbox"])
def test_a_search_that_only_ripgrep_can_do_goes_to_the_sandbox(
    bucket: Bucket, open_session: OpenSession, access: str
) -> None:
    bucket.put("a.txt", b"one two\n")
    workspace = bucket.session(open_session, options={"fileAccess": access})
    found = workspace.files("grep", r"\u{74}wo", output_mode="content")
    assert [row.text for row in found.rows] == ["one two"]
    assert bucket.server.count("create") == 1
    assert "mountpoint-s3" in workspace.run("findmnt -no SOURCE --target .").output


def test_files_through_the_sandbox_where_that_is_asked_for(bucket: Bucket, open_session: OpenSession) -> None:
    workspace = bucket.session(open_session, options={"fileAccess": "sandbox"})
    workspace.files("write", "d/f.txt", "one\n")
    assert bucket.get("d/f.txt") == b"one\n"
    workspace.files("write", "big.bin", b"x" * 400_000)
    assert len(bucket.get("big.bin")) == 400_000
    assert bucket.server.count("create") == 1


@pytest.mark.full
def test_two_sessions_lose_no_edit(bucket: Bucket) -> None:
    bucket.put("counters.txt", b"a=0\nb=0\n")
    config = config_for(bucket.server, envVars=KEYS, options=s3_options(bucket.server, bucket.name))

    def work(name: str) -> None:
        with WorkspaceSession(config, namespace=bucket.namespace) as session:
            for number in range(EDITS):
                session.files.edit("counters.txt", f"{name}={number}\n", f"{name}={number + 1}\n")

    async def awork(name: str) -> None:
        async with WorkspaceSession(config, namespace=bucket.namespace) as session:
            for number in range(EDITS):
                await session.files.aedit("counters.txt", f"{name}={number}\n", f"{name}={number + 1}\n")

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(work, "a"), pool.submit(lambda: asyncio.run(awork("b")))
        first.result()
        second.result()
    assert bucket.get("counters.txt") == f"a={EDITS}\nb={EDITS}\n".encode()


def test_the_second_of_two_writes_is_refused(bucket: Bucket, open_session: OpenSession) -> None:
    bucket.put("f.txt", b"first\n")
    item, other = bucket.session(open_session), bucket.session(open_session)
    for workspace in (item, other):
        workspace.files("read", "f.txt")
    item.files("write", "f.txt", "one\n")
    with pytest.raises(WriteConflict, match="Read it again"):
        other.files("write", "f.txt", "other\n")
    assert bucket.get("f.txt") == b"one\n"


def test_a_closed_session_touches_no_file(bucket: Bucket, open_session: OpenSession) -> None:
    workspace = bucket.session(open_session)
    workspace.close()
    with pytest.raises(SessionClosed):
        workspace.files("write", "f", "x")
    assert bucket.paths() == []


def test_a_lost_sandbox_is_reported_and_loses_no_file(bucket: Bucket, open_session: OpenSession) -> None:
    workspace = bucket.session(open_session)
    workspace.run("echo kept > f.txt; echo gone > /tmp/g")
    workspace.files("read", "f.txt")
    bucket.server.destroy_sandbox(workspace.session.sandbox_id or "")
    result = workspace.run("cat f.txt; ls /tmp/g")
    assert result.output.startswith("kept\n")
    assert "machine was replaced" in result.notices[0]
    assert "workspace's files are unchanged" in result.notices[0]
    workspace.files("write", "f.txt", "still as it was read")  # the content that was read is unchanged


def test_the_tool_description_names_the_limits_of_the_mount(
    bucket: Bucket, open_session: OpenSession
) -> None:
    workspace = bucket.session(open_session)
    assert "Files live in S3" in workspace.bash.description
    assert "S3" in workspace.session.guidance()
    message = workspace.call(workspace.bash, command="echo 1 > a; mv a b")
    assert "Function not implemented" in message.content
    assert "[hint: " in message.content
    assert "cp -r a b && rm -rf a" in message.content
    result = workspace.run("printf 'x = 1\\n' > m.py; python3 -c 'import m'; ls")
    assert (result.output, result.hint) == ("a\nm.py\n", None)


def test_elsewhere_the_model_is_not_bothered(server: LocalDaytona, open_session: OpenSession) -> None:
    workspace = open_session(server)
    assert "S3" not in workspace.bash.description
    assert "S3" not in workspace.session.guidance()
    assert workspace.run('python3 -c \'import os; os.rename("no", "such")\'').hint is None
    assert "PYTHONPYCACHEPREFIX" not in workspace.run("env").output


@pytest.mark.usefixtures("host_keys")
def test_a_job_is_told_until_when_it_can_write(bucket: Bucket, open_session: OpenSession) -> None:
    workspace = bucket.session(open_session, role=True)
    [_, notice] = workspace.run("sleep 60 &").notices
    assert "begin to fail at" in notice
    assert "UTC" in notice
