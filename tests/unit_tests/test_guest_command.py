"""The command wrapper against real zsh, bash and dash in the daemon's place."""

from __future__ import annotations

import os
import posix
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_daytona_ws._core.guest_rpc import payload as script
from langchain_daytona_ws._guest import command, processes, record
from langchain_daytona_ws.errors import CommandRefused, OutcomeUnknown, SandboxError
from tests.unit_tests.daemon import SANDBOX_PATH, Workspace, guest_client

guest_source = script.guest_source


@pytest.fixture(params=["zsh", "bash", "dash"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Workspace:
    return Workspace(request.param, tmp_path)


@pytest.fixture
def bash(tmp_path: Path) -> Workspace:
    return Workspace("bash", tmp_path)


EXACT = {
    "heredoc": ("cat <<EOF\na $((1+1))\nEOF\n", "a 2\n", 0),
    "heredoc at the very end": ("cat <<'EOF'\na $HOME\nEOF", "a $HOME\n", 0),
    "two heredocs and a pipe": ("cat <<A; cat <<B | tr a-z A-Z\none\nA\ntwo\nB", "one\nTWO\n", 0),
    "trailing comment": ("echo a # and no more", "a\n", 0),
    "a comment as the last line": ("echo a\n# done", "a\n", 0),
    "exit": ("echo a; exit 3; echo b", "a\n", 3),
    "set -e": ("set -e\nfalse\necho not reached", "", 1),
    "failing last command": ("echo a; false", "a\n", 1),
    "cat reads end of file": ("cat; echo $?", "0\n", 0),
    "read fails at once": ("read -r x; echo $?", "1\n", 0),
    "a script on stdin is not eaten": ("cat\necho still here", "still here\n", 0),
    "arrays": ("a=(1 '2 3'); echo ${#a[@]}", "2\n", 0),
    "process substitution": ("cat <(echo a)", "a\n", 0),
    "bash test": ("[[ abc == a* ]] && echo yes", "yes\n", 0),
    "extglob in a script that turns it on": ("shopt -s extglob\necho @(a|b)", "@(a|b)\n", 0),
    "brace expansion": ("echo {1..3}", "1 2 3\n", 0),
    "quotes": ("""printf '%s\\n' "it's" 'a "b"' $'c\\'d'""", "it's\na \"b\"\nc'd\n", 0),
    "dollar ampersand": ("echo '$&' '\\\\1' \"\\\\\" '%s'", "$& \\\\1 \\ %s\n", 0),
    "backslash newline": ("echo a \\\n  b", "a b\n", 0),
    "no trailing newline": ("printf abc", "abc", 0),
    "stderr in order": ("echo a; echo b >&2; echo c", "a\nb\nc\n", 0),
    "missing command": ("no-such-command-here", None, 127),
    "not executable": ("/etc/passwd", None, 126),
    "a hyphen at the beginning": ("--help", "bash: line 1: --help: command not found\n", 127),
    "a list of hyphens": (
        "- a\n+x\n",
        "bash: line 1: -: command not found\nbash: line 2: +x: command not found\n",
        127,
    ),
    "killed by a signal": ("kill -9 $$", "", 137),
    "unicode": ("echo 'żółć 🐍 \u200b'", "żółć 🐍 \u200b\n", 0),
    "carriage return": ("printf 'a\\r\\nb'", "a\r\nb", 0),
    "invalid UTF-8": ("printf 'a\\xff\\xfeb'", "a\ufffd\ufffdb", 0),
    "NUL bytes": ("printf 'a\\0b'", "a\0b", 0),
    "terminal escapes": ("printf '\\033[31mred'", "\x1b[31mred", 0),
    "pipefail is off": ("false | true; echo ${PIPESTATUS[0]}", "1\n", 0),
    "history expansion is off": ("echo 'a!b!!'; echo a!b", "a!b!!\na!b\n", 0),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.one_in(3)
def test_bash_runs_the_command_unchanged(workspace: Workspace, name: str) -> None:
    command, output, exit_code = EXACT[name]
    result = workspace.run(command)
    assert result.exit_code == exit_code
    if output is not None:
        assert result.output == output
    assert not result.truncated
    assert not result.timed_out


def test_it_starts_in_the_workspace_directory(workspace: Workspace) -> None:
    assert workspace.run("pwd").output == f"{workspace.root}\n"


def test_the_workspace_directory_is_made_again_when_it_was_removed(bash: Workspace) -> None:
    bash.run('rmdir "$PWD"')
    assert bash.run("pwd").output == f"{bash.root}\n"


@pytest.mark.parametrize(
    "command",
    ["echo ran\nif then", "echo ran\necho 'open", "echo ran; fi", "echo ran\ncat <(", "(", "echo a\n)\n"],
)
def test_a_syntax_error_runs_nothing(workspace: Workspace, command: str) -> None:
    result = workspace.run(command)
    assert result.exit_code == 2
    assert "ran" not in result.output.replace(command, "").splitlines()
    assert "syntax error" in result.output or "unexpected" in result.output


def test_a_background_process_does_not_hold_the_call(workspace: Workspace) -> None:
    began = time.monotonic()
    result = workspace.run("sleep 60 & echo $!")
    assert time.monotonic() - began < 30
    assert result.exit_code == 0
    assert result.background
    os.kill(int(result.output), 9)


def test_a_background_process_may_go_on_writing(bash: Workspace) -> None:
    result = bash.run(
        "(sleep 0.3; for i in 1 2 3; do echo line $i || exit 1; done; echo ok > survived) & echo started"
    )
    assert result.output == "started\n"
    deadline = time.monotonic() + 60
    while not (bash.root / "survived").exists() or "line 3" not in bash.on_disk(result.log_path).read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert bash.on_disk(result.log_path).read_text() == "started\nline 1\nline 2\nline 3\n"


def test_nothing_that_the_foreground_wrote_is_lost_to_a_background_writer(bash: Workspace) -> None:
    for _ in range(10):
        result = bash.run(
            "while :; do echo background; done & for i in {1..2000}; do echo line; done; echo last; kill %1",
            limit_bytes=262_144,
        )
        whole = bash.on_disk(result.log_path).read_text() if result.truncated else result.output
        lines = whole.split("\n")
        assert lines.count("line") == 2000
        assert "last" in lines


class TestTimeout:
    def test_keeps_the_partial_output(self, workspace: Workspace) -> None:
        result = workspace.run("echo before; sleep 60; echo after", timeout_s=1.5)
        assert result.exit_code == 124
        assert result.timed_out
        assert result.output == "before\n"

    @pytest.mark.parametrize(
        "escape",
        [
            "sleep 61 &",
            "setsid sleep 61 &",
            "(setsid sleep 61 &) &",
            "nohup setsid bash -c 'sleep 61' >/dev/null 2>&1 &",
            "trap '' TERM; (trap '' TERM; sleep 61; sleep 61) &",
            "env -i setsid sleep 61 &",
            "env -i setsid bash -c \"trap '' TERM; sleep 61; sleep 61\" &",
        ],
    )
    def test_kills_the_whole_tree(self, bash: Workspace, escape: str) -> None:
        result = bash.run(f"{escape}\necho started; sleep 61.5; sleep 61.5", timeout_s=0.5)
        assert (result.timed_out, result.background) == (True, False)
        assert _alive(bash) == []

    def test_a_stubborn_command_is_killed(self, bash: Workspace) -> None:
        result = bash.run("trap '' TERM; echo a; while :; do sleep 0.1; done", timeout_s=1.5)
        assert (result.exit_code, result.output) == (124, "a\n")

    def test_what_tidies_up_when_terminated_gets_to(self, bash: Workspace) -> None:
        result = bash.run(
            "trap 'echo tidied; exit 9' TERM; echo a; while :; do sleep 0.05; done", timeout_s=1.5
        )
        assert result.exit_code == 124
        assert result.output.endswith("tidied\n")

    def test_one_that_floods_its_pipe_is_not_reported_as_running_on(self, bash: Workspace) -> None:
        for _ in range(5):
            result = bash.run("yes", timeout_s=0.2)
            assert (result.timed_out, result.background) == (True, False)

    def test_what_belongs_to_root_is_killed_through_sudo(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(pid: int, number: int) -> None:
            raise PermissionError

        ran: list[list[str]] = []
        monkeypatch.setattr(processes.posix, "kill", refuse)
        monkeypatch.setattr(processes, "run_quietly", ran.append)
        own = processes._table()[1][os.getpid()]
        processes.send({os.getpid(): own, 1: "another birth"}, 9)
        assert ran == [["sudo", "-n", "kill", "-9", str(os.getpid())]]

    def test_an_earlier_call_s_server_lives_on(self, bash: Workspace) -> None:
        server = int(bash.run("sleep 60 >/dev/null 2>&1 & echo $!").output)
        bash.run("sleep 60", timeout_s=0.3)
        os.kill(server, 9)


def _alive(workspace: Workspace) -> list[str]:
    """List processes started in this workspace, by their working directory."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                where = os.readlink(f"/proc/{name}/cwd")
                line = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
            if where.startswith(str(workspace.root)) and line:
                found.append(line.decode())
    return found


class TestOutput:
    def test_at_the_limit_all_of_it_is_returned(self, bash: Workspace) -> None:
        result = bash.run("head -c 4096 /dev/zero | tr '\\0' x", limit_bytes=4096)
        assert result.output == "x" * 4096
        assert (result.truncated, result.log_path) == (False, None)

    def test_over_the_limit_head_and_tail_are_kept(self, bash: Workspace) -> None:
        result = bash.run("seq 1 100000", limit_bytes=4096)
        whole = "".join(f"{i}\n" for i in range(1, 100001))
        assert result.truncated
        assert result.output_bytes == len(whole)
        assert bash.on_disk(result.log_path).read_text() == whole
        head, notice, tail = _ends(result.output)
        assert whole.startswith(head)
        assert whole.endswith(tail)
        assert len(head) + len(tail) == 4096
        assert (
            f"{len(whole) - 4096:,} of {len(whole):,} bytes left out; all of it is in {result.log_path}"
            in notice
        )

    @given(st.text(alphabet="aż🐍\u0800\0", min_size=400, max_size=700), st.integers(0, 3))
    @settings(max_examples=15)
    def test_ends_are_cut_between_characters(self, bash: Workspace, text: str, shift: int) -> None:
        bash.root.mkdir(parents=True, exist_ok=True)
        (bash.root / "text").write_text("b" * shift + text)
        result = bash.run("cat text", limit_bytes=401)
        assert "\ufffd" not in result.output

    def test_a_gibibyte_is_bounded_everywhere(self, bash: Workspace) -> None:
        result = bash.run("head -c 1073741824 /dev/zero; echo; echo end", timeout_s=100)
        assert result.output_bytes == 1073741824 + 5
        assert len(result.output) < 66_000
        assert result.output.endswith("\nend\n")
        assert bash.on_disk(result.log_path).stat().st_size == 64 * 1024 * 1024
        assert "the first 67,108,864 bytes are in" in result.output

    def test_forged_answers_are_only_output(self, bash: Workspace) -> None:
        (bash.root.parent.parent / "home" / ".profile").write_text("echo noise")
        bash.port.extra_env = {"ENV": "/dev/null"}
        fake = '{"outcome": "finished", "exit_code": 0}'
        result = bash.run(
            f"echo '{fake}'; tr '\\0' '\\n' < /proc/$PPID/environ | head -c 200000; exit 5",
            limit_bytes=262_144,
        )
        assert result.exit_code == 5
        assert fake in result.output


def _ends(output: str) -> tuple[str, str, str]:
    head, _, rest = output.partition("\n[... ")
    notice, _, tail = rest.partition(" ...]\n")
    return head, notice, tail


class TestRefusedBeforeAnyRequest:
    @pytest.mark.parametrize("command", ["", " ", "\n\t ", "echo \0", "echo \ud800", "x" * (1024 * 1024 + 1)])
    def test_refused(self, bash: Workspace, command: str) -> None:
        with pytest.raises(CommandRefused):
            bash.run(command)
        assert bash.port.scripts == []


@pytest.mark.parametrize("filler", ["x", "żx🐍", "random"])
def test_a_command_of_a_mebibyte(workspace: Workspace, filler: str) -> None:
    if filler == "random":
        filler = os.urandom(400_000).hex()
    head, end = "cat <<'END'\n", "\nEND\necho $?"
    room = 1024 * 1024 - len(head) - len(end)
    body = (filler * (room // len(filler.encode()) + 1)).encode()[:room].decode(errors="ignore")
    result = workspace.run(head + body + end)
    assert result.exit_code == 0
    assert result.output_bytes == len(body.encode()) + 1 + 2
    assert workspace.on_disk(result.log_path).read_text() == f"{body}\n0\n"


class TestOnceOnly:
    def test_the_same_call_runs_once(self, bash: Workspace) -> None:
        first = bash.run("echo $RANDOM$RANDOM >> log; cat log", key="a1")
        again = bash.run("echo $RANDOM$RANDOM >> log; cat log", key="a1")
        assert again.output == first.output
        assert (first.from_record, again.from_record) == (False, True)
        assert (bash.root / "log").read_text().count("\n") == 1

    def test_a_second_sender_waits_for_the_first(self, bash: Workspace) -> None:
        results = []
        threads = [
            threading.Thread(
                target=lambda: results.append(bash.run("echo x >> log; sleep 0.5; wc -l < log", key="b1"))
            )
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [result.output for result in results] == ["1\n"] * 3
        assert sorted(result.from_record for result in results) == [False, True, True]

    def test_a_runner_that_died_is_reported_and_nothing_runs_again(self, bash: Workspace) -> None:
        with pytest.raises(OutcomeUnknown) as caught:
            bash.run("echo x >> log; kill -9 $PPID; sleep 60", key="c1")
        assert "may have run" in caught.value.for_model
        assert (bash.root / "log").read_text() == "x\n"
        assert _alive(bash) == []

    def test_results_outlive_a_changed_record_only_as_unknown(self, bash: Workspace) -> None:
        bash.run("echo x >> log", key="d1")
        state = bash.port.tmp / f".langchain-daytona-ws-{os.getuid()}"
        (state / "d1.call").write_text("garbage")
        with pytest.raises(OutcomeUnknown):
            bash.run("echo x >> log", key="d1")
        assert (bash.root / "log").read_text() == "x\n"


def test_a_fifo_in_place_of_the_log_does_not_block_the_time_out(bash: Workspace) -> None:
    fifo = 'mkfifo "/tmp/.langchain-daytona-ws-$(id -u)/$LANGCHAIN_DAYTONA_WS_CALL.log"'
    result = bash.run(f"{fifo}; head -c 200000 /dev/zero; sleep 600", timeout_s=1)
    assert (result.timed_out, result.log_path) == (True, None)


def test_without_memory_files_a_pipeline_runs_unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(posix, "memfd_create")
    run, env = object.__new__(command.Run), {b"A": b"1"}
    run._watch_pipeline(env)
    assert env == {b"A": b"1"}


@pytest.mark.parametrize("name", ["x.call", "tidied"])
def test_an_old_fifo_in_the_state_directory_blocks_no_call(bash: Workspace, name: str) -> None:
    at = "cd /tmp/.langchain-daytona-ws-$(id -u)"
    bash.run(f"{at}; rm -f tidied {name}; mkfifo {name}; touch -d '9 days ago' {name}")
    assert bash.run("echo hi", timeout_s=20).output == "hi\n"


@pytest.mark.parametrize("pid", [b"-1", b"9" * 20])
def test_a_forged_record_kills_no_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid: bytes
) -> None:
    killed: list[int] = []
    kill = posix.kill
    monkeypatch.setattr(posix, "kill", lambda pid, _: killed.append(pid) if pid < 1 << 31 else kill(pid, 0))
    running = record.Record(str(tmp_path), "k")
    assert running.lock(0)
    running.write(record.STARTED, pid)
    threading.Timer(0.2, running.forget).start()
    command._cancel(record.Record(str(tmp_path), "k"), "k")
    assert killed == []


def test_a_command_that_destroys_the_state_directory_has_run(bash: Workspace) -> None:
    destroyed = bash.run('d=/tmp/.langchain-daytona-ws-$(id -u); rm -rf "$d"; touch "$d"; echo done')
    assert (destroyed.exit_code, destroyed.output) == (0, "done\n")
    with pytest.raises(SandboxError, match="not this user's own directory"):
        bash.run("true")


@pytest.mark.parametrize("mode", [0o500, 0o777])
def test_the_mode_of_the_state_directory_is_restored(bash: Workspace, mode: int) -> None:
    bash.run(f"chmod {mode:o} /tmp/.langchain-daytona-ws-*")
    assert bash.run("stat -c %a /tmp/.langchain-daytona-ws-*").output == "700\n"


def test_a_directory_named_bash_is_not_the_shell(bash: Workspace) -> None:
    (bash.port.home / "bash").mkdir()
    bash.port.extra_env["PATH"] = f"{bash.port.home}:{SANDBOX_PATH}"
    assert bash.run("echo x").output == "x\n"


def test_no_process_to_be_had_is_an_error_and_nothing_ran(
    bash: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with spawning("raise OSError(11, 'Try again')", monkeypatch), pytest.raises(SandboxError) as caught:
        bash.run("echo x", key="e1")
    assert caught.value.code == "no_processes"
    bash.guest_client = guest_client(bash.port)  # another session, which sends the source again
    assert bash.run("echo x", key="e1").output == "x\n"


def test_a_python_that_cannot_create_sessions_creates_process_groups(
    bash: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with spawning("raise NotImplementedError", monkeypatch):
        result = bash.run("ps -o pgid= -p $$; echo $$; kill 0; echo not reached")
    group, pid = result.output.split()
    assert group == pid
    assert result.exit_code == 143


@contextmanager
def spawning(statement: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Replace the statement by which the guest starts bash in a new session."""
    usual = "return posix.posix_spawn(bash, argv, env, setsid=True, **how)"
    assert usual in guest_source("command")
    source = guest_source("command").replace(usual, statement)
    with monkeypatch.context() as patch:
        patch.setattr(
            script, "guest_source", lambda name: source if name == "command" else guest_source(name)
        )
        script._source.cache_clear()
        yield
    script._source.cache_clear()


def test_a_command_ignores_no_signal_that_the_daemon_ignores(bash: Workspace) -> None:
    bash.port.prefix = ["env", "--ignore-signal=HUP,INT,QUIT,TERM,PIPE,USR2"]
    assert bash.run("trap").output == ""


def test_signals_of_the_agent_do_not_end_the_runner(bash: Workspace) -> None:
    # A unique marker keeps this test from killing processes of concurrent tests.
    result = bash.run(
        "pkill -TERM -P $PPID python3; kill -TERM $PPID; kill -HUP $PPID; sleep 0.1; echo alive"
    )
    assert result.output == "alive\n"


def test_no_variable_of_ours_but_the_marker_reaches_the_command(bash: Workspace) -> None:
    printed = bash.run("env").output
    ours = [line for line in printed.splitlines() if "LANGCHAIN_DAYTONA_WS" in line]
    assert [line.partition("=")[0] for line in ours] == ["LANGCHAIN_DAYTONA_WS_CALL"]


# Characters with a meaning somewhere between Python, JSON, three shells and a terminal.
NASTY = st.text(alphabet="ab '\"\\$&`!#%*?[]{}()<>|;~^=\n\t\r\x1b\x7fżé🐍\u2028", max_size=60)


@given(NASTY)
@settings(max_examples=60)
def test_any_text_comes_through_as_data(bash: Workspace, text: str) -> None:
    quoted = "'" + text.replace("'", "'\\''") + "'"
    assert bash.run(f"printf %s {quoted}").output == text


@given(NASTY)
@settings(max_examples=60)
def test_any_text_does_what_it_does_in_plain_bash(bash: Workspace, text: str) -> None:
    # It may redirect and glob, and what an earlier example left running may still do so: each run has an empty
    # directory of its own.
    command = f"PATH=/nowhere; echo start; {text}"
    location = Path(tempfile.mkdtemp(dir=bash.port.home.parent))
    plain = location / "plain"
    plain.mkdir()
    bash.root = location / "ours"
    expected = subprocess.run(
        ["bash", "-c", command], executable="/bin/bash", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, cwd=plain, start_new_session=True, timeout=20, check=False,
        env={"PATH": "/nowhere", "HOME": str(bash.port.home)},
    )  # fmt: skip
    result = bash.run(command)
    if result.exit_code == 2 and "\n" in text.rstrip("\n") and not result.output.startswith("start"):
        return  # parsed as a whole, so that nothing of it ran
    assert result.exit_code == expected.returncode % 256
    racy = ("&", "|", "<(", ">(", "$$")  # what runs at once, and process ids
    if not any(sign in text for sign in racy):
        assert result.output == expected.stdout.decode("utf-8", "replace")


class TestTheCallsOwnOutput:
    """A process that holds the output would keep the daemon from answering."""

    def test_a_process_that_opened_it_is_ended_and_named(self, workspace: Workspace) -> None:
        began = time.monotonic()
        result = workspace.run("setsid sleep 120 > /proc/$PPID/fd/1 & sleep 0.3; echo done")
        assert time.monotonic() - began < 60
        assert result.output == "done\n"
        assert [notice for notice in result.notices if notice.startswith("killed")] == [
            "killed, since it held the output of this call itself, which could not have been answered: sleep; "
            "what ~/.zshenv or $BASH_ENV starts needs a redirect of its own"
        ]

    def test_what_a_startup_file_of_the_shell_leaves_running_is_ended(self, tmp_path: Path) -> None:
        workspace = Workspace("zsh", tmp_path)
        (workspace.port.home / ".zshenv").write_text("setsid sleep 120 &\n")
        began = time.monotonic()
        for _ in range(2):
            result = workspace.run("echo done")
            assert (result.output, len(result.notices)) == ("done\n", 1)
        assert time.monotonic() - began < 60

    def test_what_redirects_its_output_lives_on(self, tmp_path: Path) -> None:
        workspace = Workspace("zsh", tmp_path)
        startup = "setsid sleep 120 >/dev/null 2>&1 </dev/null &\necho $! >> $HOME/pids\n"
        (workspace.port.home / ".zshenv").write_text(startup)
        try:
            assert workspace.run("echo done").notices == ()
        finally:
            for pid in (workspace.port.home / "pids").read_text().split():
                os.kill(int(pid), 9)  # which also says that it lives

    def test_its_own_reader_of_a_background_process_lives_on(self, bash: Workspace) -> None:
        result = bash.run("(sleep 0.3; echo late) & echo early")
        assert (result.output, result.background, len(result.notices)) == ("early\n", True, 1)
        log = bash.on_disk(result.log_path)
        limit = time.monotonic() + 60
        while log.read_text() != "early\nlate\n":
            assert time.monotonic() < limit
            time.sleep(0.02)
