"""The command line: its options in process, its server as a process of its own."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from langchain_daytona_ws.cli.app import app
from langchain_daytona_ws.local import LocalDaytona
from tests.sample import sample

PROGRAM = [sys.executable, "-c", "from langchain_daytona_ws.cli import main; main()"]
READY_S = 40.0


def invoke(*arguments: str, **environment: str):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", **environment})


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DAYTONA_")}
    return {**kept, **more}


@contextmanager
def serving(*arguments: str, **more: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Yield the running server and the variables of its export commands; CONFIG has a configuration, if any."""
    server = subprocess.Popen(
        [*PROGRAM, "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**more),
        start_new_session=True,
    )
    assert server.stdout is not None
    try:
        message, deadline = "", time.monotonic() + READY_S
        while "Ctrl-C stops it." not in message:
            assert time.monotonic() < deadline, message
            assert server.poll() is None, server.communicate()[1]
            if select.select([server.stdout], [], [], 0.2)[0]:
                message += os.read(server.stdout.fileno(), 4096).decode()
        reported = dict(re.findall(r"^export (\w+)=(\S+)$", message, re.MULTILINE))
        reported.update(("CONFIG", line) for line in message.splitlines() if line.startswith("{"))
        yield server, reported
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.communicate()


def descendants(pid: int) -> set[int]:
    """Return the living processes below `pid`."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    found: set[int] = set()
    level = {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level} - found
        found |= level
    return found


def test_version() -> None:
    result = invoke("--version")
    assert result.exit_code == 0
    assert result.stdout == f"langchain-daytona-ws {version('langchain-daytona-ws')}\n"


def test_no_command_shows_the_commands() -> None:
    result = invoke()
    assert "serve" in result.output


def test_help_names_the_options() -> None:
    result = invoke("serve", "--help")
    assert result.exit_code == 0
    for option in ("--host", "--port", "--isolation", "--allow-remote", "--shell", "--api-key"):
        assert option in result.output


def test_another_host_needs_the_flag() -> None:
    assert invoke("serve", "--daemon", "0.1").exit_code == 2
    result = invoke("serve", "--host", "0.0.0.0")
    assert result.exit_code == 2
    assert "0.0.0.0 is not a loopback address" in result.stderr
    assert "--allow-remote" in result.stderr


def test_a_used_port_is_reported_in_one_message() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = invoke("serve", "--port", str(port))
    assert result.exit_code == 1
    assert f"can't serve on 127.0.0.1:{port}" in result.stderr
    assert "choose another --port" in result.stderr


def test_missing_bubblewrap_is_reported_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    result = invoke("serve")
    assert result.exit_code == 1
    assert "apt-get install bubblewrap" in result.stderr
    assert "--isolation none" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("module", "extra", "arguments"),
    [("typer", "cli", ()), ("starlette", "local", ("serve",)), ("uvicorn", "local", ("serve",))],
)
def test_a_missing_extra_is_named(module: str, extra: str, arguments: tuple[str, ...]) -> None:
    hide = f"import sys; sys.modules[{module!r}] = None; from langchain_daytona_ws.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", hide, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=180,
    )
    assert done.returncode == 1
    assert f"{module} is not installed" in done.stderr
    assert f"pip install 'langchain-daytona-ws[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_importing_it_loads_neither_typer_nor_the_server() -> None:
    code = (
        "import sys; import langchain_daytona_ws.cli; "
        "print([name for name in ('typer', 'rich', 'starlette', 'daytona', 'langchain_core') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=180
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("number", sample([signal.SIGINT, signal.SIGTERM], signal.SIGTERM))
def test_the_sdk_works_against_it_and_a_signal_leaves_nothing(number: int) -> None:
    from daytona import CreateSandboxFromSnapshotParams, Daytona, DaytonaConfig

    with serving("--port", "0", "--shell", "bash", "--daemon", "0.226") as (server, reported):
        client = Daytona(
            DaytonaConfig(api_url=reported["DAYTONA_API_URL"], api_key=reported["DAYTONA_API_KEY"])
        )
        sandbox = client.create(CreateSandboxFromSnapshotParams())
        sandbox.update_env({"ADDED": "yes"})  # which 0.190 does not know
        answer = sandbox.process.exec("echo $((6 * 7)); (sleep 1000 &) >/dev/null 2>&1")
        assert (answer.exit_code, answer.result.strip()) == (0, "42")
        below = descendants(server.pid)
        assert below
        server.send_signal(number)
        _, errors = server.communicate(timeout=180)
        assert server.returncode == 0
        assert errors == "Stopped; its sandboxes are deleted.\n"
        deadline = time.monotonic() + 60
        while left := {pid for pid in below if Path(f"/proc/{pid}").exists()}:
            assert time.monotonic() < deadline, left
            time.sleep(0.05)


def test_the_printed_example_works(tmp_path: Path) -> None:
    from langchain_daytona_ws.cli.serve import _EXAMPLE

    with LocalDaytona() as server:
        command = _EXAMPLE.replace("python -c", f"{sys.executable} -c", 1)
        variables = environment(DAYTONA_API_URL=server.api_url, DAYTONA_API_KEY=server.api_key)
        done = subprocess.run(
            ["bash", "-c", command],
            check=False,
            capture_output=True,
            text=True,
            env=variables,
            cwd=tmp_path,
            timeout=180,
        )
    assert done.stderr == ""
    assert done.stdout.startswith("/mnt/workspaces/try\nPython 3.")


def test_the_key_can_come_from_the_environment() -> None:
    with serving(LOCAL_DAYTONA_API_KEY="a-key-of-mine") as (_, reported):
        assert reported["DAYTONA_API_KEY"] == "a-key-of-mine"


def test_with_s3_its_configuration_makes_a_workspace_there() -> None:
    from langchain_daytona_ws import WorkspaceSession

    with serving("--s3", "--shell", "bash") as (_, reported):
        config = json.loads(reported["CONFIG"])
        config["options"].update(apiUrl=reported["DAYTONA_API_URL"], apiKey=reported["DAYTONA_API_KEY"])
        with WorkspaceSession(config, namespace="demo") as session:
            session.files.write("a.txt", "one\n")
            assert session.run("cat a.txt").output == "one\n"


def test_a_missing_mount_s3_is_reported_in_one_message() -> None:
    result = invoke("serve", "--s3", "--mount-s3", "/nowhere/mount-s3")
    assert result.exit_code == 2
    assert "/nowhere/mount-s3 does not exist" in " ".join(result.stderr.split())


def test_without_isolation_it_warns() -> None:
    with serving("--isolation", "none") as (server, _):
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=180)
    assert server.returncode == 0
    assert "NO ISOLATION" in errors
