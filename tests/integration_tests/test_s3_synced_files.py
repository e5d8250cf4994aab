"""Files of a synchronised workspace straight on S3, over boto3 and a real HTTP server, and the commands that follow."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from langchain_daytona_ws import FileUnsuitable, PathRefused, WorkspaceBackend
from tests.integration_tests.conftest import Driven
from tests.integration_tests.s3 import Bucket, bucket

__all__ = ["bucket"]  # fixtures

OpenSession = Callable[..., Driven]


def synced(bucket: Bucket, open_session: OpenSession, **options: Any) -> Driven:
    return bucket.session(open_session, options={"s3Mode": "sync", **options})


def put(bucket: Bucket, path: str, data: bytes, permissions: str) -> None:
    metadata = {"file-permissions": permissions, "file-mtime": "1000000000ns"}
    bucket.client.put_object(Bucket=bucket.name, Key=bucket.key(path), Body=data, Metadata=metadata)


def attributes(bucket: Bucket, path: str) -> tuple[str, float]:
    """Return the permissions and the time in seconds."""
    metadata = bucket.client.head_object(Bucket=bucket.name, Key=bucket.key(path))["Metadata"]
    assert metadata["file-mtime"].endswith("ns")
    return metadata["file-permissions"], int(metadata["file-mtime"][:-2]) / 1e9


def test_permissions_are_kept_and_times_are_new(bucket: Bucket, open_session: OpenSession) -> None:
    put(bucket, "run.sh", b"echo one\n", "0100755")
    workspace = synced(bucket, open_session)
    before_s = time.time()
    workspace.files("edit", "run.sh", "one", "two")
    workspace.files("write", "new.txt", "x")
    for path, expected in (("run.sh", "0100755"), ("new.txt", "0100644")):
        permissions, mtime_s = attributes(bucket, path)
        assert permissions == expected
        assert before_s - 0.001 <= mtime_s <= time.time() + 0.001
    assert bucket.server.requests == []


def test_symlinks_are_followed_inside_the_workspace(bucket: Bucket, open_session: OpenSession) -> None:
    put(bucket, "src/real.py", b"x = 1\n", "0100644")
    put(bucket, "link.py", b"src/real.py", "0120777")
    put(bucket, "out", b"/etc/passwd", "0120777")
    workspace = synced(bucket, open_session)
    assert "x = 1" in workspace.files("read", "link.py").body
    workspace.files("edit", "link.py", "1", "2")
    assert bucket.get("src/real.py") == b"x = 2\n"
    assert bucket.get("link.py") == b"src/real.py"
    with pytest.raises(PathRefused, match="out leads out of the workspace"):
        workspace.files("read", "out")
    workspace.files("delete", "link.py")
    assert bucket.paths() == ["out", "src/real.py"]


def test_an_ignored_path_is_left_to_the_shell(bucket: Bucket, open_session: OpenSession) -> None:
    workspace = synced(bucket, open_session, syncIgnore=["node_modules/"])
    message = workspace.call(workspace.file, action="read", path="node_modules/a/index.js")
    assert message.status == "error"
    assert "can exist on the machine only. Use bash to read or change it." in message.content
    with pytest.raises(FileUnsuitable):
        workspace.files("write", "node_modules/a", "x")
    result = WorkspaceBackend(workspace.session).read("node_modules/a")
    assert "Use execute to read or change it." in str(result.error)
    assert bucket.paths() == []


def test_a_prefix_of_its_own(bucket: Bucket, open_session: OpenSession) -> None:
    workspace = synced(bucket, open_session, workspacePrefix=f"team-{bucket.namespace}/{{namespace}}/")
    workspace.files("write", "a.txt", "x")
    assert bucket.paths() == []
    key = f"team-{bucket.namespace}/{bucket.namespace}/a.txt"
    assert bucket.client.get_object(Bucket=bucket.name, Key=key)["Body"].read() == b"x"


def test_the_model_reads_nothing_about_a_mount(bucket: Bucket, open_session: OpenSession) -> None:
    workspace = synced(bucket, open_session)
    assert "S3" not in workspace.bash.description
    assert "S3" not in workspace.session.guidance()
    assert "saved when each call returns" in workspace.session.guidance()
    result = workspace.run('env; python3 -c \'import os; os.rename("no", "such")\'')
    assert result.hint is None
    assert "PYTHONPYCACHEPREFIX" not in result.output
    job = workspace.run("sleep 0.1 >> out.txt & wait")
    assert job.notices == ()


def test_a_change_is_in_the_next_command_with_its_mode_and_seen_by_git(
    bucket: Bucket, open_session: OpenSession
) -> None:
    workspace = synced(bucket, open_session, syncIgnore=["*.log"])
    git = "git -c user.name=a -c user.email=a@b.c"
    made = workspace.run(
        f"printf 'echo one\n' > a.sh; chmod 755 a.sh; ln -s a.sh l; echo x > x.log; "
        f"git init -q . && git add a.sh l && {git} commit -qm one"
    )
    assert made.exit_code == 0, made.output
    workspace.files("edit", "l", "one", "two")  # of the same size
    result = workspace.run("git status --porcelain a.sh l; ./l; stat -c %a a.sh; readlink l; cat x.log")
    assert result.output.splitlines() == [" M a.sh", "two", "755", "a.sh", "x"]
    assert "x.log" not in bucket.paths()
    with pytest.raises(FileUnsuitable):
        workspace.files("read", "x.log")
