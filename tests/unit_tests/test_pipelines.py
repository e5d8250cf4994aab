"""The exit codes of a pipeline's parts: when they are requested and reported, and that nothing else changes."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from langchain_daytona_ws._core.commands import run as commands
from langchain_daytona_ws._core.commands.pipelines import ends_in_pipeline, relevant_exit_codes
from tests.unit_tests.daemon import Workspace

IN_ONE = [
    "a | b",
    "cd x && a -q 2>&1 | tail -20",
    "a |\n b",
    "a \\\n | b\n",
    "python3 - <<'EOF' | tail\nx = a; y | z\nEOF\n",
    "cat <<-EOF | sort\n\ta;b\n\tEOF",
    "for i in a b; do x; done | sort",
    "{ a; b; } | tee x",
    "(cd a; make) 2>&1 | tail",
    "a | while read x; do echo $x; done",
    "a | awk '{print $1; x|y}'",
    "a | b > out 2>/dev/null",
    "a |& b",
    "time a | b",
    "a | b || true",
    "a | b || echo no",
    "true || a | b",
    "a | b  # no",
    "a; b | c;",
    "a | b\n\n",
    "if x; then y; fi | tee",
    "case x in a|b) c;; (d) e;; esac | f",
    "x=$(a; b) c | d",
    'a | grep -E "x|y;z"',
    "[[ a =~ (b|c) ]] && a | b",
    "f() { a; }; f | b",
    "a | (b; c)",
    'echo "$(a | b)" | c',
    "a &> x | b",
    "a | b >| c",
    "a $(( 1 | 2 )) | b",
    "diff <(a) <(b) | c",
]
IN_NONE = [
    "a",
    "a || b",
    "a | b; c",
    "a | b\nc",
    "a | b && c",
    "a | b || c",
    "a | b &",
    "! a | b",
    "echo 'a | b'",
    'echo "a | b"',
    "# a | b",
    "(a | b)",
    "{ a | b; }",
    "for i in 1; do a | b; done",
    "if a | b; then c; fi",
    "x=$(a | b)",
    "f() { a | b; }; f",
    "[[ a =~ (b|c) ]]",
    "case x in a|b) c;; esac",
    "cat <<EOF\na | b\nEOF",
    "cat <(a | b)",
    "echo a >| b",
    "a | b )",
    "a | b; wait",
    # These could see how the exit codes are asked for.
    "trap x EXIT; a | b",
    "a | b; echo ${PIPESTATUS[0]}; a | b",
    "set -v; a | b",
    "echo $_ | b",
    "a | kill -INT $$",
]


@pytest.mark.parametrize("command", IN_ONE)
def test_a_command_that_ends_in_a_pipeline(command: str) -> None:
    assert ends_in_pipeline(command)


@pytest.mark.parametrize("command", IN_NONE)
def test_a_command_that_ends_in_none_at_its_top_level(command: str) -> None:
    assert not ends_in_pipeline(command)


@pytest.mark.parametrize(
    "piece",
    ["${", "'\"`", "<<a ", "(", "$'\\'", "| ", '"\\', "<<'", "a", "\\", "#", "$(", "<<a\n", "[[ ", "${x:-"],
)
def test_reading_takes_time_in_proportion(piece: str) -> None:
    began = time.process_time()
    ends_in_pipeline((piece * 64_000)[:60_000] + "|")
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("reported", "exit_code", "expected"),
    [
        ([0, 1, 0], 0, (1, 0)),
        ([0, 0, 2, 0], 0, (0, 2, 0)),
        ([3, 1, 3], 3, (1, 3)),
        ([1, 1, 0], 1, (1, 0)),  # pipefail
        ([141, 141, 0], 141, (141, 0)),  # pipefail makes a failure of it
        ([0, 141, 0], 0, ()),
        ([0, 141, 1, 0], 0, (141, 1, 0)),
        ([1, 0, 1], 1, ()),
        ([0, 0, 0], 0, ()),
        ([0, 0], 0, ()),
        ([0, 1, 1], 0, ()),  # a condition
        ([3, 1, 0], 3, ()),  # before an exit
        ([0, 1, 0], 124, ()),
        (None, 0, ()),
        ("1 0", 0, ()),
        ([0, True, 0], 0, ()),
        ([0, -1, 0], 0, ()),
        ([0, 256, 0], 0, ()),
        ([0, *[1] * 99, 0], 0, ()),
    ],
)
def test_relevant_exit_codes(reported: object, exit_code: int, expected: tuple[int, ...]) -> None:
    assert relevant_exit_codes(reported, exit_code) == expected


REPORTED = {
    "false | true": (1, 0),
    "(exit 3) | cat; ": (3, 0),
    "echo a | grep b | wc -l": (0, 1, 0),
    "nope 2>/dev/null | tail -1": (127, 0),
    "python3 -c 'import sys; sys.exit(5)' | cat": (5, 0),
    "cat <<'E' | bash | cat\nexit 6\nE": (0, 6, 0),
    "f() { return 3; }; f | cat": (3, 0),
    "set -e; false | cat": (1, 0),
    "set -eo pipefail; false | cat": (1, 0),
    "set -euxC; IFS=01; false | cat": (1, 0),
    "cd /; false | cat || true": (1, 0),
    "exec 2>&1; false | cat": (1, 0),
    "for i in 1; do false; done | cat": (1, 0),
    "kill -9 $BASHPID | true": (137, 0),
    "printf() { echo mine; }; false | cat": (1, 0),
    "cd /tmp; set -ur; false | cat": (),
    "yes | head -1": (),
    "seq 100000 | head -1 | cat": (),
    "true | false": (),
    "true && true | cat": (),
    "exec true; false | true": (),
    "exit 3; false | true": (),
    "false | kill -9 $$": (),
    "false | kill -TERM $$": (),
    "false | cat; unset PATH | true": (),
    "echo $BASH_ENV$-$LINENO; env | grep -c BASH_": (),
    "echo 'trap' > t.sh; . ./t.sh | cat; bash t.sh | cat": (),
    "ls -l /proc/self/fd | wc -l": (),
    "echo a | { cat; exit 4; }": (),
    "if then | x": (),
}


@pytest.mark.parametrize("command", REPORTED)
def test_exit_codes_are_reported_and_nothing_else_changes(tmp_path: Path, command: str) -> None:
    workspace = Workspace("bash", tmp_path)
    result = workspace.run(command)
    assert result.pipeline == REPORTED[command]
    plain = subprocess.run(
        ["env", "--default-signal", "bash", "-c", command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"}, start_new_session=True, check=False, timeout=60,
    )  # fmt: skip
    # Sorted: the parts of a pipeline run side by side, also where bash traces them.
    assert sorted(result.output.splitlines()) == sorted(plain.stdout.decode().splitlines())
    assert result.exit_code == (128 - plain.returncode if plain.returncode < 0 else plain.returncode)


def test_the_model_reads_them_before_the_exit_code(tmp_path: Path) -> None:
    workspace = Workspace("bash", tmp_path)
    text = workspace.run("echo FAILED | grep -c OK | tail -1").text
    assert text == "0\n[exit codes in the pipeline: 0, 1, 0]\n[exit code 0]"
    assert workspace.run("yes | head -1").text == "y\n[exit code 0]"


def test_a_time_out_is_reported(tmp_path: Path) -> None:
    result = Workspace("bash", tmp_path).run("echo before; false | sleep 60 | cat", timeout_s=0.5)
    assert (result.exit_code, result.timed_out, result.output) == (124, True, "before\n")
    assert result.pipeline == ()


@pytest.mark.parametrize("name", ["BASH_ENV", "POSIXLY_CORRECT"])
def test_no_exit_codes_if_bash_has_a_foreign_startup_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "theirs").write_text("echo theirs\n")
    workspace = Workspace("bash", tmp_path)
    workspace.port.extra_env = {name: str(tmp_path / "theirs")}
    result = workspace.run(f"echo ${name} | cat; false | true")
    assert result.output.splitlines()[-1] == str(tmp_path / "theirs")
    assert result.pipeline == ()


def test_a_script_of_more_than_an_argument_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "ends_in_pipeline", lambda command: True)
    filler = "# " + "x" * 200_000 + "\n"
    assert Workspace("bash", tmp_path).run(filler + "false | true").pipeline == (1, 0)


def test_forged_exit_codes_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "ends_in_pipeline", lambda command: True)
    workspace = Workspace("bash", tmp_path)
    # It can say what it likes of itself, within what a pipeline can be.
    forge = "for f in /proc/$PPID/fd/*; do case $(readlink $f) in /memfd:pipeline*) {};; esac; done; kill -9 $$ | cat"
    for subject, expected in {
        "echo 137 1 137 > $f": (1, 137),
        "echo 0 1 0 > $f": (),
        "echo ' [1] \x1b' > $f": (),
        "seq 5000 > $f": (),
        "head -c 1000000 /dev/zero > $f": (),
    }.items():
        result: Any = workspace.run(forge.replace("{}", subject))
        assert (result.exit_code, result.pipeline) == (137, expected)
