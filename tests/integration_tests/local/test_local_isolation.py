"""Isolation: a sandbox cannot read or change the host."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from daytona import Daytona, Sandbox
from daytona.common.errors import DaytonaError

from langchain_daytona_ws.local import IsolationUnavailable, LocalDaytona, isolation

from .conftest import eventually, named, sleeping


def test_proc_sys_is_not_writable(sandbox: Sandbox) -> None:
    knob = Path("/proc/sys/kernel/core_pattern")
    before = knob.read_text()
    response = sandbox.process.exec("id -u; echo evil > /proc/sys/kernel/core_pattern")
    assert response.result.startswith("0\n")
    assert response.exit_code != 0
    # the same by a program, so that no shell's own ideas are in the way, and remounting does not help
    response = sandbox.process.exec(
        "mount -o remount,rw /proc/sys 2>/dev/null; mount -t proc proc /mnt 2>/dev/null;"
        "for f in /proc/sys/kernel/core_pattern /mnt/sys/kernel/core_pattern /proc/sysrq-trigger; do"
        " python3 -c \"open('$f','w').write('evil')\" 2>/dev/null && echo WROTE $f; done; true"
    )
    assert response.result == ""
    assert knob.read_text() == before


def test_it_runs_as_an_unprivileged_user_of_the_host(server: LocalDaytona, sandbox: Sandbox) -> None:
    mapped = sandbox.process.exec("cat /proc/self/uid_map").result.split()
    assert mapped[0] == "0"
    assert mapped[2] == "1"
    sandbox.process.exec("sleep 987.125 >/dev/null 2>&1 &")
    assert eventually(lambda: bool(sleeping("987.125")))
    (process,) = sleeping("987.125")
    uid = process.stat().st_uid
    assert uid != 0
    (record,) = (item for item in server.sandboxes if item.id == sandbox.id)
    assert uid == record.folder.stat().st_uid
    assert os.readlink(process / "ns/user") != os.readlink("/proc/self/ns/user")


def test_each_sandbox_has_a_user_of_its_own(server: LocalDaytona, daytona: Daytona) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give users away")
    daytona.create()
    daytona.create()
    owners = {record.folder.stat().st_uid for record in server.sandboxes}
    assert len(owners) == 2
    assert 0 not in owners
    for record in server.sandboxes:
        assert stat.S_IMODE(record.folder.stat().st_mode) == 0o700


def test_host_files_are_out_of_sight_and_reach(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("of the host")
    tmp_path.chmod(0o777)
    secret.chmod(0o666)
    script = f"""
        cat {secret}; echo x > {secret}; ls -A {Path.home()}; ls -A /root
        for f in /usr/evil /bin/evil /etc/ssl/evil /usr/bin/env; do echo x > $f && echo WROTE $f; done
        cat /etc/shadow /proc/1/root/etc/shadow
    """
    response = sandbox.process.exec(f"{{ {script} }} 2>/dev/null")
    assert response.result == ""
    assert secret.read_text() == "of the host"
    assert set(sandbox.process.exec("ls /").result.split()) >= {"usr", "tmp", "home"}
    assert sandbox.process.exec("ls /home").result == "daytona\n"


def test_a_sandbox_cannot_read_the_disk_of_another(server: LocalDaytona, daytona: Daytona) -> None:
    mine, other = daytona.create(), daytona.create()
    other.fs.upload_file(b"theirs", "/tmp/theirs")
    for record in server.sandboxes:
        response = mine.process.exec(
            f"ls {record.folder} {record.folder.parent}; cat {record.folder}/disk/tmp/theirs"
        )
        assert "theirs\n" not in response.result.replace("/tmp/theirs", "")
        assert response.exit_code != 0
    assert mine.process.exec("ls /tmp").result == ""


def test_the_hosts_environment_is_not_inherited(
    monkeypatch: pytest.MonkeyPatch, connect: Callable[[LocalDaytona], Daytona]
) -> None:
    monkeypatch.setenv("HOST_SECRET", "tell-nobody")
    with LocalDaytona() as server:
        sandbox = connect(server).create()
        seen = sandbox.process.exec(
            "env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; cat /proc/*/cmdline"
        ).result
        assert "tell-nobody" not in seen
        assert server.api_key not in seen
        names = {line.partition("=")[0] for line in sandbox.process.exec("env").result.splitlines()}
        assert names <= {
            "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "PWD", "OLDPWD", "SHLVL", "_",
            "DAYTONA_SANDBOX_ID", "DAYTONA_SANDBOX_USER", "TAR_OPTIONS",
        }  # fmt: skip


def test_a_sandboxes_variables_show_on_no_command_line(daytona: Daytona) -> None:
    sandbox = daytona.create(
        named("keeper", env_vars={"TOKEN": "very-secret-value", "LD_PRELOAD": "/nowhere.so"})
    )
    sandbox.process.exec("sleep 432.5 >/dev/null 2>&1 &")
    assert eventually(lambda: bool(sleeping("432.5")))
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                assert b"very-secret-value" not in (entry / "cmdline").read_bytes()
    assert "very-secret-value" in sandbox.process.exec("echo $TOKEN").result


def test_variables_with_impossible_names_are_an_error(server: LocalDaytona, daytona: Daytona) -> None:
    with pytest.raises(DaytonaError, match="invalid environment variable key"):
        daytona.create(named("bad", env_vars={"no-good": "x"}))
    assert server.sandboxes[0].state == "error"


def test_the_process_tree_is_its_own(server: LocalDaytona, daytona: Daytona) -> None:
    mine, other = daytona.create(), daytona.create()
    other.process.exec("sleep 654.5 >/dev/null 2>&1 &")
    listed = mine.process.exec("ps axo args").result
    assert "654.5" not in listed
    assert "pytest" not in listed
    assert len(listed.splitlines()) <= 5
    assert mine.process.exec(f"kill -0 {os.getpid()}").exit_code != 0
    namespaces = mine.process.exec("readlink /proc/self/ns/{pid,ipc,uts,user,mnt}").result.split()
    for line in namespaces:
        kind = line.partition(":")[0]
        assert os.readlink(f"/proc/self/ns/{kind}") != line
    assert mine.process.exec("hostname").result.strip() == mine.id[:12]


def test_root_inside_is_root_over_its_own_files(sandbox: Sandbox) -> None:
    assert sandbox.process.exec("touch f; chmod 000 f; cat f && chown root f && rm f").exit_code == 0


def test_no_file_descriptor_of_the_server_leaks(sandbox: Sandbox) -> None:
    links = sandbox.process.exec("ls -l /proc/self/fd /proc/1/fd").result
    assert "/work" not in links
    assert links.count("/dev/pts") == 0
    # what a command gets are its own three; the fourth is the folder being listed
    assert sandbox.process.exec("ls /proc/self/fd").result == "0\n1\n2\n3\n"


def test_without_bubblewrap_it_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation.shutil, "which", lambda *_, **__: None)
    with pytest.raises(IsolationUnavailable, match=r"package `bubblewrap`.*--isolation none"):
        LocalDaytona().start()


def test_a_root_that_sandboxes_cannot_enter_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("the sandboxes run as the same user")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(IsolationUnavailable, match="cannot enter"):
        LocalDaytona(root=closed).start()
    assert list(closed.iterdir()) == []


def test_without_isolation_commands_run_on_the_host_with_a_warning(
    caplog: pytest.LogCaptureFixture, connect: Callable[[LocalDaytona], Daytona], tmp_path: Path
) -> None:
    with LocalDaytona(isolation="none") as server:
        assert "NO ISOLATION" in caplog.text
        sandbox = connect(server).create()
        folder = server.sandboxes[0].folder
        assert sandbox.process.exec(f"echo $HOME $TMPDIR; echo x > {tmp_path}/seen").result == (
            f"{folder}/home {folder}/tmp\n"
        )
        assert (tmp_path / "seen").read_text() == "x\n"
        sandbox.process.exec("(setsid sleep 876.5 >/dev/null 2>&1 &)")
        assert eventually(lambda: bool(sleeping("876.5")))
        sandbox.stop()
        assert not sleeping("876.5")
        sandbox.start()
        sandbox.process.exec("(setsid sleep 876.5 >/dev/null 2>&1 &)")
        server.crash_sandbox(sandbox.id)
    assert not sleeping("876.5")
    assert not folder.exists()
