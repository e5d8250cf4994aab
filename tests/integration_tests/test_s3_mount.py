"""The mount of an S3 workspace: made with the first command, mended with any later one, never left out."""

from __future__ import annotations

import binascii
import hashlib
import os
import re
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from langchain_daytona_ws import FileMissing, SandboxError, WorkspaceError
from langchain_daytona_ws._adapters.aws import GivenKeys
from langchain_daytona_ws._core.commands.run import CommandResult
from langchain_daytona_ws._core.s3.store import Credentials
from langchain_daytona_ws._session.credential_cache import CredentialCache
from langchain_daytona_ws._session.single_flight import once_blocking
from langchain_daytona_ws.local import Fault, LocalDaytona, mounting
from tests.integration_tests.conftest import Driven
from tests.integration_tests.mounted_sandbox import MountedSandbox
from tests.integration_tests.s3 import KEYS, Bucket, bucket, refuses_renames_and_is_gone
from tests.sample import sample

__all__ = ["bucket"]  # fixtures

OpenSession = Callable[..., Driven]

WHERE_AM_I = "findmnt -no SOURCE --target . && cat known.txt"


@pytest.fixture
def workspace(bucket: Bucket, open_session: OpenSession) -> Driven:
    bucket.put("known.txt", b"known")
    return bucket.session(open_session)


def test_the_first_command_creates_mounts_and_runs_in_two_requests(bucket: Bucket, workspace: Driven) -> None:
    result = workspace.run("pwd; echo written > new.txt; cat known.txt new.txt")
    assert result.output == f"/mnt/workspaces/{bucket.namespace}\nknownwritten\n"
    assert bucket.get("new.txt") == b"written\n"
    assert [request.action for request in bucket.server.requests] == ["create", "execute"]
    assert workspace.run("cat new.txt").output == "written\n"
    assert bucket.server.count("execute") == 2


def test_a_directory_that_bash_has_made_is_seen_once_it_holds_a_file(workspace: Driven) -> None:
    workspace.run("mkdir made")
    for name, *given in (
        ("list", "made"),
        (
            "glob",
            "*",
        ),
        ("grep", "x"),
    ):
        named = {} if name == "list" else {"path": "made"}
        with pytest.raises(FileMissing, match="created in bash appears here when it contains a file"):
            workspace.files(name, *given, **named)
    workspace.run("echo x > made/a")
    assert [entry.name for entry in workspace.files("list", "made").entries] == ["a"]


def _renames_asked(bucket: Bucket) -> int:
    return sum("renameObject" in item.query for item in bucket.server.s3.requests)


def test_a_store_that_accepts_renames_is_not_mounted(bucket: Bucket, workspace: Driven) -> None:
    bucket.server.s3.accept_renames = True
    with pytest.raises(SandboxError, match="would leave empty files") as raised:
        workspace.run("mv known.txt moved.txt")
    assert raised.value.code == "mount_renames_lose_files"
    assert not raised.value.retryable
    assert "s3Endpoint to the proxy" in str(raised.value)
    assert "lose their content" in raised.value.for_model
    assert bucket.server.requests == []  # not even a sandbox was made
    assert bucket.paths() == ["known.txt"]
    assert "known" in workspace.files("read", "known.txt").body

    bucket.server.s3.accept_renames = False
    assert workspace.run("mv known.txt moved.txt").exit_code == 1
    assert workspace.run("cat known.txt").output == "known"


def test_a_missing_bucket_is_not_mounted_where_listing_it_succeeds(
    bucket: Bucket, open_session: OpenSession
) -> None:
    name = f"missing-{bucket.namespace}"
    bucket.server.s3.list_missing_buckets = True
    workspace = bucket.session(open_session, options={"workspaceBucketName": name})
    with pytest.raises(
        SandboxError, match=r"the bucket does not exist \(NoSuchBucket.*FILESYSTEM_BUCKET_NAME"
    ) as raised:
        workspace.run("ls")
    assert (raised.value.code, raised.value.retryable) == ("mount_no_bucket", False)
    assert bucket.server.requests == []  # not even a sandbox was made
    bucket.server.make_bucket(name)
    assert workspace.run("ls").exit_code == 0
    bucket.client.delete_bucket(Bucket=name)


def test_a_store_is_probed_once_for_renames(bucket: Bucket, workspace: Driven) -> None:
    before = _renames_asked(bucket)
    for _ in range(3):
        workspace.run("cat known.txt")
    assert _renames_asked(bucket) - before == 1
    assert bucket.paths() == ["known.txt"]


def test_a_store_that_cannot_be_probed_is_not_mounted(bucket: Bucket, open_session: OpenSession) -> None:
    workspace = bucket.session(open_session, options={"s3Endpoint": "http://127.0.0.1:9"})
    with pytest.raises(SandboxError, match="could not find out whether the store") as raised:
        workspace.run("true")
    assert (raised.value.code, raised.value.retryable) == ("mount_renames_unknown", True)
    assert "options.s3Endpoint" in str(raised.value)
    assert bucket.server.requests == []


def test_files_that_a_command_left_empty_are_found_at_once(bucket: Bucket, workspace: Driven) -> None:
    for name in ("a", "b"):
        workspace.run(f": > {name}.txt")
        assert workspace.files("read", f"{name}.txt").body == ""
        workspace.run(f": > {name}/x.txt || (mkdir {name}; : > {name}/x.txt)")
        found = workspace.files("glob", "**/x.txt").entries
        assert f"{name}/x.txt" in [entry.name for entry in found]
        workspace.run(f": > {name}.new")
        workspace.files("write", f"{name}.new", "content\n", overwrite=True)
        time.sleep(0.2)  # for what would write the empty file over it
        assert bucket.get(f"{name}.new") == b"content\n"


def test_a_command_that_is_cut_off_says_so(bucket: Bucket, workspace: Driven) -> None:
    result = workspace.run(
        "(/bin/echo 1; until test -e /tmp/seen; do sleep 0.02; done; /bin/echo 2) > bg.log & until test -s bg.log; do "
        "sleep 0.02; done; sleep 0.1; cat bg.log; touch /tmp/seen; wait"
    )
    assert result.exit_code == 0
    assert "/tmp, then cp" in (result.hint or "")
    assert bucket.get("bg.log") == b"1\n"


BREAKAGES = {
    "a killed daemon": "pkill -9 -f '[m]ount-s3.*workspaces'",
    "an unmounted directory": 'umount -l "$PWD"',
    "a plain directory with a file": 'd=$PWD; umount -l "$d"; echo below > "$d/below.txt"',
    "no directory": 'd=$PWD; cd /; umount -l "$d"; rmdir "$d"',
    "nothing above it either": 'd=$PWD; cd /; umount -l "$d"; rm -rf /mnt/workspaces',
    "a lost state directory": "rm -rf /var/lib/langchain-daytona-ws",
    "a garbled status": "for f in /var/lib/langchain-daytona-ws/*.status; do echo x y z w > $f; done",
    "lost credentials and daemon": "rm -r /var/lib/langchain-daytona-ws/*; pkill -9 -f '[m]ount-s3.*workspaces'",
    "two mounts, one on the other": (
        'd=$PWD; cd /; c=$(ls -d /var/lib/langchain-daytona-ws/*/); AWS_CONFIG_FILE=$c/config setsid mount-s3 agents '
        '"$d/sub" --prefix x/ --region us-east-1 >/dev/null 2>&1; pkill -9 -f "mount-s3.*workspaces"'
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "breakage",
    sample(BREAKAGES, "a killed daemon", "a plain directory with a file", "a garbled status"),
)
def test_the_next_command_repairs_a_broken_mount(bucket: Bucket, workspace: Driven, breakage: str) -> None:
    workspace.run(breakage)
    before = bucket.server.count("execute")
    result = workspace.run(WHERE_AM_I)
    assert (result.exit_code, result.output) == (0, "mountpoint-s3\nknown")
    # Only where the credentials are gone too, they have to be sent for.
    lost = "/var/lib" in breakage and "setsid" not in breakage
    assert bucket.server.count("execute") - before == (2 if lost else 1)


_LOST_PROGRAMS = "rm /tmp/.langchain-daytona-ws-*/*.program; "
# The modules of the call are asked for first. Then the mounter is, or the credentials, which bring the mounter along.
LOST_PROGRAMS = {
    "a mount that works": (_LOST_PROGRAMS, 2),
    "a killed daemon": (_LOST_PROGRAMS + BREAKAGES["a killed daemon"], 3),
    "lost credentials and daemon": (_LOST_PROGRAMS + BREAKAGES["lost credentials and daemon"], 3),
}


@pytest.mark.parametrize(("loss", "requests"), sample(LOST_PROGRAMS, "lost credentials and daemon"))
def test_lost_programs_and_credentials_are_sent_again(
    bucket: Bucket, workspace: Driven, loss: str, requests: int
) -> None:
    workspace.run(loss)
    before = bucket.server.count("execute")
    result = workspace.run(f"echo ran >> /tmp/ran; {WHERE_AM_I}; wc -l < /tmp/ran")
    assert result.output == "mountpoint-s3\nknown1\n"
    assert bucket.server.count("execute") - before == requests
    assert workspace.run("wc -l < /tmp/ran").output == "1\n"
    assert bucket.server.count("execute") - before == requests + 1


def count(workspace: Driven, daemons: str) -> str:
    return workspace.run(f"pgrep -fc '[m]ount-s3.*{daemons}'").output


@pytest.mark.parametrize(
    ("signal", "which"),
    sample(
        [("KILL", ""), ("STOP", "workspaces"), ("STOP", "skills"), ("STOP", "")],
        ("KILL", ""),
        ("STOP", "skills"),
    ),
)
def test_a_dead_or_hung_mount_is_replaced_by_the_next_call(
    bucket: Bucket, open_session: OpenSession, signal: str, which: str
) -> None:
    skills = bucket.server.make_bucket(f"skills-{bucket.namespace}")
    bucket.client.put_object(Bucket=skills, Key="how.md", Body=b"# How")
    bucket.put("known.txt", b"known")
    workspace = bucket.session(open_session, options={"skillsBucketName": skills})
    # The kernel caches the root's attributes: as on the real mount-s3, stat does not detect it.
    poll = "cd /; stat /mnt/workspaces/* /mnt/skills"
    workspace.run(poll)
    assert workspace.run(f"pkill -{signal} -f '[m]ount-s3.*{which}'; {poll}", timeout_s=20).exit_code == 0
    before = bucket.server.count("execute")
    began = time.monotonic()
    result = workspace.run(f"{WHERE_AM_I} && cat /mnt/skills/how.md; echo ran >> /tmp/ran")
    took_s = time.monotonic() - began
    assert (result.exit_code, result.output) == (0, "mountpoint-s3\nknown# How")
    assert workspace.run("cat /tmp/ran").output == "ran\n"
    assert bucket.server.count("execute") - before == 2
    assert took_s < 15.0  # 1.0 and 4.0 s on a quiet machine
    assert (count(workspace, "workspaces"), count(workspace, "skills")) == ("1\n", "1\n")


@pytest.mark.full
def test_a_time_out_names_a_storage_that_does_not_answer(workspace: Driven) -> None:
    workspace.run("cat known.txt")
    hung = workspace.run("pkill -STOP -f '[m]ount-s3.*workspaces'; cat ./*", timeout_s=1)
    assert hung.timed_out
    assert any("storage did not answer" in notice for notice in hung.notices)
    slow = workspace.run("cat known.txt; sleep 60", timeout_s=1)
    assert slow.output == "known"
    assert not any("storage" in notice for notice in slow.notices)


@pytest.mark.full
def test_an_old_daemon_that_ends_late_takes_no_new_mount_away(bucket: Bucket, workspace: Driven) -> None:
    # A process that stays in the old mount keeps its daemon from ending when it is detached.
    workspace.run("(exec 9<known.txt; cd ..; sleep 300) >/dev/null 2>&1 & sleep 300 >/dev/null 2>&1 &")
    workspace.run("pkill -STOP -f '[m]ount-s3.*workspaces'")
    assert workspace.run("cat known.txt").output == "known"
    assert count(workspace, "workspaces") == "1\n"
    workspace.run("pkill -CONT -f '[m]ount-s3'; pkill sleep; sleep 0.5")
    assert workspace.run(WHERE_AM_I).output == "mountpoint-s3\nknown"
    assert count(workspace, "workspaces") == "1\n"


def test_new_keys_are_used_by_the_existing_mount(bucket: Bucket) -> None:
    bucket.put("known.txt", b"known")
    box = MountedSandbox(bucket)
    try:
        box.run("cat known.txt")
        # As from another session with other keys, which knows nothing of what the sandbox has.
        given = GivenKeys(Credentials("AKIALATER", "another-secret"))
        box.mount._credentials = partial(CredentialCache().get, once_blocking, given)
        box.mount._delivered.clear()
        bucket.server.s3.clear_requests()
        assert box.run("cat known.txt").output == "known"
        assert {item.access_key for item in bucket.server.s3.requests if item.service == "s3"} == {
            "AKIALATER"
        }
    finally:
        box.close()


def test_files_below_the_mount_point_are_kept_and_reported(bucket: Bucket, workspace: Driven) -> None:
    workspace.run(BREAKAGES["a plain directory with a file"])
    result = workspace.run("ls; cat /tmp/found-under-workspace-*/below.txt")
    assert result.output == "known.txt\nbelow\n"
    [notice] = result.notices
    assert "/tmp/found-under-workspace-" in notice
    assert "workspaces" not in notice
    assert bucket.paths() == ["known.txt"]


def test_no_command_runs_in_the_unmounted_directory(bucket: Bucket, workspace: Driven) -> None:
    # Killed, so that the daemon does not unmount the other mount at its end.
    workspace.run('pkill -9 mount-s3; umount -l "$PWD"; mount -t tmpfs other "$PWD"')
    with pytest.raises(SandboxError) as caught:
        workspace.run("touch lost")
    assert caught.value.code == "mount_foreign_mount"
    assert "options.workspaceRoot" in caught.value.message
    assert "Nothing ran" in caught.value.for_model
    assert bucket.paths() == ["known.txt"]


def test_concurrent_first_commands_mount_once(bucket: Bucket, open_session: OpenSession) -> None:
    workspace = bucket.session(open_session)
    results: list[CommandResult] = []
    commands = [f"echo {number} > f{number}; pgrep -fc '[m]ount-s3.*workspaces'" for number in range(4)]
    threads = [
        threading.Thread(target=lambda item=item: results.append(workspace.session.run(item)))
        for item in commands
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {result.output for result in results} == {"1\n"}
    assert bucket.paths() == ["f0", "f1", "f2", "f3"]
    assert bucket.server.count("create") == 1


def test_skills_are_read_only(bucket: Bucket, open_session: OpenSession) -> None:
    skills = bucket.server.make_bucket(f"skills-{bucket.namespace}")
    bucket.client.put_object(Bucket=skills, Key="how/to.md", Body=b"# How")
    workspace = bucket.session(open_session, options={"skillsBucketName": skills})
    result = workspace.run("cat /mnt/skills/how/to.md; echo x > /mnt/skills/mine")
    assert "# How" in result.output
    assert "Read-only file system" in result.output


def _breaks(name: str, bucket: Bucket) -> dict[str, Any]:
    return {
        "denied": {"deny": ("agents/",)},
        "no bucket": {"options": {"workspaceBucketName": "no-such-bucket"}},
        "wrong region": {"options": {"workspaceBucketName": f"elsewhere-{bucket.namespace}"}},
        "a file in its place": {"options": {"workspaceRoot": "/etc/passwd"}},
        "skills denied": {"options": {"skillsBucketName": "denied-skills"}, "deny": ("denied-skills/",)},
    }[name]


@pytest.mark.parametrize(
    ("name", "code", "remedy"),
    sample(
        [
            ("denied", "mount_denied", "s3:ListBucket"),
            ("no bucket", "mount_no_bucket", "FILESYSTEM_BUCKET_NAME"),
            ("wrong region", "mount_wrong_region", "options.awsRegion"),
            ("a file in its place", "mount_not_a_directory", "options.workspaceRoot"),
            (SKILLS_DENIED := ("skills denied", "mount_denied", "skillsBucketName")),
        ],
        SKILLS_DENIED,
    ),
)
def test_a_failed_mount_is_reported_with_its_remedy(
    bucket: Bucket, open_session: OpenSession, name: str, code: str, remedy: str
) -> None:
    if name == "wrong region":
        bucket.server.make_bucket(f"elsewhere-{bucket.namespace}", region="eu-central-1")
    if name == "skills denied" and not _has(bucket, "denied-skills"):
        bucket.server.make_bucket("denied-skills")
    settings = _breaks(name, bucket)
    bucket.server.s3.deny = settings.pop("deny", ())
    workspace = bucket.session(open_session, **settings)
    with pytest.raises(SandboxError) as caught:
        workspace.run("echo ran > /tmp/ran")
    error = caught.value
    assert error.code == code
    assert remedy in error.message
    assert "/mnt" not in error.for_model
    assert "agents" not in error.for_model
    if name == "denied":
        bucket.server.s3.deny = ()
        assert workspace.run("ls /tmp/ran").exit_code == 2  # and it works as soon as it may


@pytest.mark.full
def test_an_s3_that_does_not_answer_is_unreachable(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounting, "START_S", 2.0)  # in the place of mount-s3's 30
    options = {"mountAwsS3Buckets": True, "workspaceBucketName": "agents"}
    with LocalDaytona(s3=True) as server, refuses_renames_and_is_gone() as endpoint:
        workspace = open_session(server, options={**options, "s3Endpoint": endpoint}, envVars=KEYS)
        with pytest.raises(SandboxError, match=r"options\.s3Endpoint") as caught:
            workspace.run("true")
        workspace.close()
    assert (caught.value.code, caught.value.retryable) == ("mount_unreachable", True)


def _has(bucket: Bucket, name: str) -> bool:
    return name in [item["Name"] for item in bucket.client.list_buckets()["Buckets"]]


def test_a_sandbox_without_mount_s3_is_an_error(server: LocalDaytona, open_session: OpenSession) -> None:
    with refuses_renames_and_is_gone() as endpoint:
        options = {"mountAwsS3Buckets": True, "workspaceBucketName": "agents", "s3Endpoint": endpoint}
        workspace = open_session(server, options=options, envVars=KEYS)
        with pytest.raises(SandboxError, match="s3-snapshot") as caught:
            workspace.run("true")
    assert caught.value.code == "mount_no_mount_s3"


def test_the_keys_are_in_no_environment_argument_or_process_list(
    bucket: Bucket, open_session: OpenSession
) -> None:
    # Given through the configuration's envVars they would be, since that is what envVars is: so through the port.
    workspace = MountedSandbox(bucket)
    poll = "env; ps -ef; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'; set"
    for _ in range(2):
        output = workspace.run(f"sleep 5 & sleep 0.1; {poll}; cat /proc/self/fd/3; kill %1").output
        assert "mount-s3" in output
        assert "PATH=" in output
        assert KEYS["AWS_SECRET_ACCESS_KEY"] not in output
        assert KEYS["AWS_ACCESS_KEY_ID"] not in output
    modes = "stat -c '%A %U' /var/lib/langchain-daytona-ws/*/ /var/lib/langchain-daytona-ws/*/*.json"
    assert workspace.run(modes).output.split() == ["drwx------", "daytona", "-rw-------", "daytona"]
    workspace.close()


def test_the_keys_are_in_no_traceback_with_its_variables(bucket: Bucket, workspace: Driven) -> None:
    bucket.server.faults.add(Fault(kind="status", status=400, action="execute", times=1))
    with pytest.raises(WorkspaceError) as caught:
        workspace.run("true")
    bucket.server.faults.clear()
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "is_delivered = " in shown, "the frame of the mount's attachment"
    encoded = re.findall("[A-Za-z0-9+/]{40,}", shown)
    decoded = b" ".join(binascii.a2b_base64(item[: len(item) // 4 * 4]) for item in encoded)
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in shown
    assert KEYS["AWS_SECRET_ACCESS_KEY"].encode() not in decoded


def test_a_stop_and_start_in_the_middle_costs_no_command(bucket: Bucket) -> None:
    workspace = MountedSandbox(bucket)
    assert workspace.run("echo one > f; cat f").output == "one\n"
    bucket.server.stop_sandbox(workspace.info.id)
    assert workspace.run(f"{WHERE_AM_I.partition(' && ')[0]}; cat f").output == "mountpoint-s3\none\n"
    # The state is on the sandbox's own disk: no credentials had to be sent again.
    assert workspace.mount.secrets == 1
    workspace.close()


@pytest.mark.parametrize("size", sample([1, 1000, 100 << 20], 1000))
def test_changes_are_visible_on_both_sides_when_the_call_returns(
    bucket: Bucket, workspace: Driven, size: int
) -> None:
    printed = workspace.run(f"head -c {size} /dev/urandom > out.bin; sha256sum out.bin", timeout_s=100).output
    assert hashlib.sha256(bucket.get("out.bin")).hexdigest() == printed.split()[0]
    data = os.urandom(size)
    bucket.put("in.bin", data)
    printed = workspace.run("sha256sum in.bin", timeout_s=100).output
    assert printed.split()[0] == hashlib.sha256(data).hexdigest()
    workspace.run(": > empty")
    assert _soon(lambda: "empty" in bucket.paths())
    bucket.put("empty-too", b"")
    assert workspace.run("stat -c %s empty-too").output == "0\n"


def _soon(happens: Callable[[], bool]) -> bool:
    waiting = threading.Event()
    return any(happens() or waiting.wait(0.05) for _ in range(200))
