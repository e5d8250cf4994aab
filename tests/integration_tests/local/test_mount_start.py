"""Start mount-s3, end it in every way, and check the state afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from daytona import Daytona, Sandbox

from langchain_daytona_ws.local import LocalDaytona, S3Unavailable, mounting

from .conftest import Connect
from .mounted import BUCKET, HOME, KEYS, Mounted, within
from .test_local_isolation import (
    test_a_sandbox_cannot_read_the_disk_of_another,
    test_host_files_are_out_of_sight_and_reach,
    test_it_runs_as_an_unprivileged_user_of_the_host,
    test_no_file_descriptor_of_the_server_leaks,
    test_proc_sys_is_not_writable,
    test_root_inside_is_root_over_its_own_files,
    test_the_process_tree_is_its_own,
)

__all__ = [  # held of sandboxes that may mount as of all others
    "test_a_sandbox_cannot_read_the_disk_of_another",
    "test_host_files_are_out_of_sight_and_reach",
    "test_it_runs_as_an_unprivileged_user_of_the_host",
    "test_no_file_descriptor_of_the_server_leaks",
    "test_proc_sys_is_not_writable",
    "test_root_inside_is_root_over_its_own_files",
    "test_the_process_tree_is_its_own",
]


@pytest.fixture
def server(mounted_sandbox: Mounted) -> LocalDaytona:
    return mounted_sandbox.server


@pytest.fixture
def daytona(mounted_sandbox: Mounted) -> Daytona:
    return mounted_sandbox.daytona


@pytest.fixture
def sandbox(daytona: Daytona) -> Iterator[Sandbox]:
    made = daytona.create()
    yield made
    made.delete()


def test_a_mount_is_invisible_outside_and_bound_programs_stay_as_they_are(alone: Mounted) -> None:
    alone.mount("/mnt/w")
    with open("/proc/self/mountinfo") as file:
        assert "mountpoint-s3" not in file.read()
    printed = alone.run(
        "for d in /usr /opt/aws/mountpoint-s3 /run/daytona /usr/local/sbin /etc/ssl; do\n"
        "mount -o remount,bind,rw $d && echo REMOUNTED $d; umount -l $d && echo UNMOUNTED $d\n"
        "touch $d/evil && echo WROTE $d; done 2>/dev/null; ls /usr/bin/env /dev/fuse"
    )[1]
    assert printed == "/dev/fuse\n/usr/bin/env\n"


def test_it_says_what_it_mounted_and_goes_on_in_the_background(alone: Mounted) -> None:
    output = alone.ok(f"mkdir /mnt/w; env {KEYS} {alone.mount_command('/mnt/w')} && mountpoint /mnt/w")
    assert output == f"prefix {HOME} of bucket {alone.bucket} is mounted at /mnt/w\n/mnt/w is a mountpoint\n"
    assert alone.ok("findmnt -no SOURCE,FSTYPE /mnt/w").split() == ["mountpoint-s3", "fuse"]
    assert alone.ok("pgrep -c mount-s3") == "1\n"
    code, output = alone.run(f"env {KEYS} {alone.mount_command('/mnt/w')}")
    assert code == 1
    assert "mount point /mnt/w is already mounted" in output


def test_the_groups_end_is_its_end_unless_it_has_a_session_of_its_own(alone: Mounted) -> None:
    for setsid, survives in (("setsid ", True), ("", False)):
        command = f"env {KEYS} {setsid}{alone.mount_command('/mnt/w')}"
        script = (
            f"mkdir -p /mnt/w; set -m; bash -c '{command} >/dev/null; sleep 60' & "
            "while ! stat -f /mnt/w | grep -q fuse; do sleep 0.05; done; kill -9 -$!"
        )
        alone.run(script)
        assert (alone.run("stat -f /mnt/w")[0] == 0) is survives
        alone.ok("umount -l /mnt/w")


def test_a_dead_daemon_is_not_known_by_the_root_and_the_way_back(alone: Mounted) -> None:
    alone.put(f"{HOME}f", b"x")
    alone.mount("/mnt/w")
    alone.ok("pkill -9 mount-s3")
    poll = (
        "d = '/mnt/w'; print(err(os.stat, d), err(os.statvfs, d), err(os.stat, d + '/f'), err(os.listdir, d))"
    )
    assert within(60, lambda: alone.python(poll) == "ok ENOTCONN ENOTCONN ENOTCONN")
    assert alone.run("mountpoint -q /mnt/w && cd /mnt/w")[0] == 0
    code, output = alone.run(f"env {KEYS} {alone.mount_command('/mnt/w')}")
    assert code == 1
    assert "mount point /mnt/w is already mounted" in output
    alone.ok("fusermount -u /mnt/w || umount -l /mnt/w")
    alone.mount("/mnt/w")
    assert alone.ok("cat /mnt/w/f") == "x"


def test_a_daemon_that_hangs_is_not_known_by_the_root(alone: Mounted) -> None:
    alone.mount("/mnt/w")
    alone.ok("pkill -STOP mount-s3; cd /mnt/w; stat .")
    assert alone.run("timeout 1 stat -f /mnt/w; echo $?")[1].endswith("124\n")
    alone.ok("pkill -KILL mount-s3")


def test_at_its_end_it_unmounts_its_path(alone: Mounted) -> None:
    alone.mount("/mnt/w")
    alone.ok("(cd /mnt/w; exec sleep 300) >/dev/null 2>&1 & sleep 0.2; umount -l /mnt/w; pgrep mount-s3")
    alone.mount("/mnt/w")
    assert alone.ok("mountpoint -q /mnt/w && pgrep -c mount-s3; pkill sleep").split()[0] == "2"
    assert within(60, lambda: alone.run("mountpoint -q /mnt/w")[0] != 0)


def test_beside_a_libfuse_of_version_2_it_uses_version_3(alone: Mounted) -> None:
    # As with mount-s3's own package: programs that load "fuse" by the linker get that library.
    alone.ok(
        "mkdir -p /root/lib && cat > /root/lib/linker.py <<'END'\n"
        "import ctypes.util\n"
        "find = ctypes.util.find_library\n"
        "ctypes.util.find_library = lambda name: 'libfuse.so.2' if name == 'fuse' else find(name)\n"
        "END\n"
        "sed -e '1s/ -IS$//' -e 's#^import sys$#import sys; sys.path.insert(0, \"/root/lib\"); import linker#' "
        "$(command -v mount-s3) > /root/mount-s3 && chmod +x /root/mount-s3"
    )
    command = alone.mount_command("/mnt/w").replace("mount-s3", "/root/mount-s3", 1)
    alone.ok(f"mkdir -p /mnt/w; env {KEYS} setsid {command} && stat -f /mnt/w")
    assert "libfuse3.so" in alone.ok("cat /proc/$(pgrep -f [m]ount-s3)/maps")


@pytest.mark.parametrize("signal", ["TERM", "INT"])
@pytest.mark.one_in(2)
def test_asked_to_end_it_unmounts(alone: Mounted, signal: str) -> None:
    alone.mount("/mnt/w")
    alone.ok(f"pkill -{signal} mount-s3")
    assert within(
        5, lambda: alone.run("mountpoint -q /mnt/w || test $? = 32 -o $? = 1 && ! pgrep mount-s3")[0] == 0
    )
    assert alone.ok("ls -A /mnt/w") == ""


def test_in_the_foreground(alone: Mounted) -> None:
    command = alone.mount_command("/mnt/w", flags="--foreground")
    alone.ok(
        f"mkdir /mnt/w; : >/tmp/out; "
        f"(env {KEYS} setsid {command} >/tmp/out 2>&1; echo ended $? >>/tmp/out) >/dev/null 2>&1 &"
    )
    assert within(60, lambda: "is mounted at" in alone.ok("cat /tmp/out"))
    alone.ok("umount /mnt/w")
    assert within(60, lambda: "ended 0" in alone.ok("cat /tmp/out"))


def test_after_a_stop_the_folder_is_plain_and_empty(alone: Mounted) -> None:
    alone.put(f"{HOME}f", b"x")
    alone.mount("/mnt/w")
    alone.sandbox.stop()
    alone.sandbox.start()
    assert alone.run("mountpoint -q /mnt/w")[0] != 0
    assert alone.ok("ls -A /mnt/w") == ""
    alone.mount("/mnt/w")
    assert alone.ok("ls /mnt/w") == "f\n"


@pytest.mark.full
def test_an_s3_that_does_not_answer_is_asked_again_until_the_time_is_up(
    monkeypatch: pytest.MonkeyPatch, connect: Callable[[LocalDaytona], Daytona]
) -> None:
    monkeypatch.setattr(mounting, "START_S", 2.0)
    with LocalDaytona(s3=True) as server:
        with contextlib.closing(Mounted(server, connect(server))) as made:
            command = made.mount_command("/mnt").replace(server.s3_endpoint, "http://127.0.0.1:9")
            code, output = made.run(f"env {KEYS} {command} 2>&1")
    assert code == 1
    assert output == "Error: Timeout after 2 seconds while waiting for mount process to be ready\n"


@pytest.mark.full
def test_what_is_wrong_is_said(alone: Mounted) -> None:
    elsewhere = alone.server.make_bucket(f"else-{alone.bucket}", "eu-west-1")
    mount = alone.mount_command
    rows: list[tuple[str, int, str]] = [
        (mount("/mnt/none"), 1, "mount point /mnt/none does not exist"),
        (mount("/etc/hostname"), 1, "mount point /etc/hostname is not a directory"),
        (mount("/mnt", bucket="missing-bucket"), 1, "The bucket does not exist"),
        (mount("/mnt", bucket=elsewhere), 1, "Wrong region (expecting eu-west-1)"),
        (mount("/mnt", flags="--uid 0"), 2, "invalid value '0' for '--uid <UID>'"),
        (mount("/mnt", flags="--gid 0"), 2, "invalid value '0' for '--gid <GID>'"),
        (mount("/mnt", flags="--no-such"), 2, "error: unexpected argument '--no-such' found"),
        (mount("/mnt", prefix="no-slash"), 2, "'--prefix <PREFIX>'"),
        ("mount-s3", 2, "the following required arguments were not provided"),
        ("mount-s3 --version", 0, "mount-s3 1."),
        ("mount-s3 --help", 0, "--allow-overwrite"),
    ]
    for command, code, message in rows:
        exit_code, output = alone.run(f"env {KEYS} {command} 2>&1")
        assert (exit_code, message in output) == (code, True), output
    exit_code, output = alone.run(f"env {KEYS} {mount('/mnt', bucket='missing-bucket')} 2>&1")
    assert output.startswith(
        "Error: Failed to create S3 client\n\nCaused by:\n    0: initial ListObjectsV2 failed for"
    )
    assert output.endswith("Error: Failed to create mount process\n")
    # A default region is corrected.
    alone.ok(
        f"mkdir /mnt/e; env {KEYS} {mount('/mnt/e', bucket=elsewhere).replace('--region us-east-1', '')}"
    )


@pytest.mark.full
def test_without_the_device_it_fails_as_the_original(
    monkeypatch: pytest.MonkeyPatch, connect: Callable[[LocalDaytona], Daytona]
) -> None:
    monkeypatch.setattr(mounting, "_device", lambda folder: None)
    with LocalDaytona(s3=True) as server:
        with contextlib.closing(Mounted(server, connect(server))) as made:
            code, output = made.run(f"env {KEYS} {made.mount_command('/mnt')}")
    assert code == 1
    assert "fuse: device not found, try 'modprobe fuse' first" in output


def test_without_s3_a_sandbox_has_neither_program_nor_device(connect: Connect) -> None:
    with LocalDaytona() as server:
        sandbox: Sandbox = connect(server).create()
        assert sandbox.process.exec("command -v mount-s3; ls /dev/fuse /opt/aws 2>/dev/null").result == ""
        with pytest.raises(RuntimeError, match=r"LocalDaytona\(s3=True\)"):
            server.make_bucket(BUCKET)


@pytest.mark.full
def test_two_servers_share_no_bucket() -> None:
    with LocalDaytona(s3=True) as item, LocalDaytona(s3=True) as other:
        item.make_bucket(BUCKET)
        other.make_bucket(BUCKET)
        assert item.s3_endpoint != other.s3_endpoint


def test_missing_arguments_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="isolation='bubblewrap'"):
        LocalDaytona(s3=True, isolation="none")
    monkeypatch.setattr(mounting.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(S3Unavailable, match="extra `local`"):
        LocalDaytona(s3=True).start()
