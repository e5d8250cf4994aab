"""Real error output of programs on a mount of S3 leads to the right hint, and the hint works there."""

from __future__ import annotations

import io
import shutil
import sysconfig
import tarfile
from itertools import count
from pathlib import Path

import pytest

from langchain_daytona_ws._core.hints.guidance import LOCAL_CACHES
from langchain_daytona_ws._core.hints.hint import hint

from .mounted import HOME, Mounted

_numbers = count(1)

FILES = {
    "old": b"old\n",
    "lines": b"two\none\n",
    "s.sh": b"#!/bin/sh\necho ran\n",
    "d/f": b"x\n",
    "p.diff": b"--- old\n+++ old\n@@ -1 +1 @@\n-old\n+new\n",
}
# Local files that several rows start from; each row has a directory of its own as /tmp/$ROW.
PREPARE = "mkdir -p /tmp/$ROW/a/b && cd /tmp/$ROW && echo x >a/b/c && tar cf a.tar a && "
AS = "git -c user.name=a -c user.email=b"

# The command that fails, words of its hint, what the hint says with names filled in, and what that prints in the end.
ROWS = [
    ("mv old new", "Use: cp -r old new && rm -rf old", "cp -r old new && rm -rf old; ls old; cat new", "old"),
    ("mv d e", "Use: cp -r d e && rm -rf d", "cp -r d e && rm -rf d; cat e/f; ls d", "x"),
    ("mv old new; echo went on", "cp -r old new", "true", ""),
    ("sort lines >t && mv t lines", "cp -r t lines && rm -rf t", "cp -r t lines && rm -rf t; cat lines", "one\ntwo"),
    (
        "sed -i s/one/1/ lines",
        "sed SCRIPT FILE >",
        "sed s/one/1/ lines >/tmp/$ROW/x && cp /tmp/$ROW/x lines; cat lines",
        "1",
    ),
    (
        "perl -pi -e s/one/1/ lines",
        "perl -pe",
        "perl -pe s/one/1/ lines >/tmp/$ROW/x && cp /tmp/$ROW/x lines; cat lines",
        "1",
    ),
    ("perl -i.bak -pe s/one/1/ lines", "perl -pe", "true", ""),
    ("echo x >>old", "Appending", "(cat old; echo x) >/tmp/$ROW/x && cp /tmp/$ROW/x old; cat old", "old\nx"),
    ("echo x >>old; cat old", "Appending", "true", ""),
    ("sh -c 'echo x >>old'", "Appending", "true", ""),
    ("printf 'echo x >%sold' '>' >a.sh; bash a.sh", "cannot be appended to", "true", ""),
    ("echo x | tee -a old", "Appending", "(cat old; echo x) >/tmp/$ROW/x && cp /tmp/$ROW/x old; cat old", "old\nx"),
    ("touch old", "times cannot be set", "cp old /tmp/$ROW/x && cp /tmp/$ROW/x old; cat old", "old"),
    ("chmod +x s.sh && ./s.sh", "bash x.sh", "bash s.sh", "ran"),
    ("find . -name '*.sh' -exec chmod +x {} +", "bash x.sh", "true", ""),
    ("./s.sh", "Use: bash s.sh", "bash s.sh", "ran"),
    ("printf 'all:\\n\\t./s.sh\\n' >Makefile; make", "bash x.sh", "true", ""),
    ("/usr/bin/python3 -c \"import subprocess; subprocess.run(['./s.sh'])\"", "through bash", "true", ""),
    ("ln -s old new", "Links cannot be made", "cp -r old new; cat new", "old"),
    ("ln old new", "Links cannot be made", "true", ""),
    ("cp -s old new", "without -l and -s", "cp old new; cat new", "old"),
    ("cp -a d e", "Use cp -r", "cp -r d e; cat e/f", "x"),
    (
        "git init .",
        "--separate-git-dir",
        f"rm -rf .git && git init -q --separate-git-dir=/tmp/$ROW/repo.git . && {AS} add . && {AS} commit -qm "
        "m && git log --oneline | wc -l",
        "1",
    ),
    (
        "git init -q /tmp/$ROW/r; git clone /tmp/$ROW/r c",
        "git clone URL /tmp/repo",
        "git clone -q /tmp/$ROW/r /tmp/$ROW/c 2>/dev/null; cp -r /tmp/$ROW/c c2; ls -A c2",
        ".git",
    ),
    (
        f"git init -q --separate-git-dir=/tmp/$ROW/g . && git add . && {AS} commit -qm m; git mv old new",
        "git rm -q A",
        "cp old new && git rm -q old && git add new && git status --short",
        "R  old -> new",
    ),
    (
        f"git init -q /tmp/$ROW/r && cd /tmp/$ROW/r && {AS} commit -q --allow-empty -m one && cd - && "
        "cp -r /tmp/$ROW/r r && cd r && git config user.name x",
        "cp -r . /tmp/repo",
        f"cp -r r /tmp/$ROW/repo && cd /tmp/$ROW/repo && {AS} commit -q --allow-empty -m two && git log "
        "--format=%s",
        "two\none",
    ),
    (
        "/usr/bin/python3 -m venv --without-pip v",
        "-m venv /tmp/venv",
        "/usr/bin/python3 -m venv --without-pip /tmp/$ROW/venv && /tmp/$ROW/venv/bin/python -c 'print(1)'",
        "1",
    ),
    (
        "sqlite3 n.db 'create table t (a)'",
        "SQLite",
        "sqlite3 /tmp/$ROW/n.db 'create table t (a)' && cp /tmp/$ROW/n.db n2.db && sqlite3 n2.db .tables",
        "t",
    ),
    ("echo 'create table t (a);' | sqlite3 n.db", "SQLite", "true", ""),
    (
        "sqlite3 /tmp/$ROW/n.db 'create table t (a)'; cp /tmp/$ROW/n.db .; sqlite3 -readonly n.db "
        "'insert into t values (1)'",
        "SQLite",
        "true",
        "",
    ),
    (
        "/usr/bin/python3 -c \"import sqlite3; sqlite3.connect('n.db').execute('create table t (a)')\"",
        "SQLite",
        "true",
        "",
    ),
    ("/usr/bin/python3 -c \"import sqlite3; sqlite3.connect('no/n.db')\"", "SQLite", "true", ""),
    (
        "zip z.zip old",
        "zip -r /tmp/x.zip",
        "zip -qr /tmp/$ROW/x.zip old && cp /tmp/$ROW/x.zip . && unzip -p x.zip",
        "old",
    ),
    (
        "/usr/bin/python3 -c \"import zipfile\nwith zipfile.ZipFile('z.zip', 'w') as z: z.write('old')\"",
        "Save it under /tmp",
        # The name of a failed upload can't be created again for a tenth of a second.
        "sleep 0.2; /usr/bin/python3 -c \"import zipfile, shutil\nwith zipfile.ZipFile('/tmp/$ROW/z.zip', 'w') as z: "
        "z.write('old')\nshutil.copyfile('/tmp/$ROW/z.zip', 'z.zip')\"; unzip -p z.zip",
        "old",
    ),
    (
        f"{PREPARE}cd - && tar xf /tmp/$ROW/a.tar",
        "tar xm --no-same-owner",
        "rm -rf a; tar xmf /tmp/$ROW/a.tar --no-same-owner --no-same-permissions; echo $?; cat a/b/c",
        "0\nx",
    ),
    (
        f"{PREPARE}ln -s c a/b/l && tar cf l.tar a; cd - && tar xmf /tmp/$ROW/l.tar --no-same-permissions",
        "cp -rL",
        "cp -rL /tmp/$ROW/a a2; cat a2/b/l",
        "x",
    ),
    ("tar cf a.tar d && tar rf a.tar old", "tar c", "tar cf a.tar d old && tar tf a.tar", "d/\nd/f\nold"),
    (
        f"{PREPARE}zip -qr a.zip a; cd - && unzip -q /tmp/$ROW/a.zip",
        "unzip -DD",
        "rm -rf a; unzip -DDq /tmp/$ROW/a.zip a/b/c; echo $?; cat a/b/c",
        "0\nx",
    ),
    (
        "head -c 2 /etc/services >part; curl -sS -C - -o part file:///etc/services",
        "without -C",
        "curl -sS -o part file:///etc/services; cmp part /etc/services && echo same",
        "same",
    ),
    (
        "echo 'int main(){return 0;}' >m.c; gcc -o m m.c",
        "Compilers",
        "gcc -o /tmp/$ROW/m m.c && /tmp/$ROW/m; echo $?",
        "0",
    ),
    ("echo 'int main(){return 0;}' >m.c; gcc -c m.c", "Compilers", "gcc -c -o /tmp/$ROW/m.o m.c; echo $?", "0"),
    ("patch -p0 <p.diff", "git apply", "git apply -p0 p.diff; cat old", "new"),
    (
        "patch -p0 <p.diff",
        "cp the file to /tmp",
        "cp old /tmp/$ROW/o && patch -s /tmp/$ROW/o p.diff && cp /tmp/$ROW/o old; cat old",
        "new",
    ),
    ("sort -o lines lines", "sort FILE >", "sort lines >/tmp/$ROW/x && cp /tmp/$ROW/x lines; cat lines", "one\ntwo"),
    (
        "truncate -s 0 old",
        "under /tmp",
        "cp old /tmp/$ROW/x && truncate -s 2 /tmp/$ROW/x && cp /tmp/$ROW/x old; cat old",
        "ol",
    ),
    ("dd if=/dev/zero of=old bs=1 seek=2 count=1 conv=notrunc", "changed in place", "true", ""),
    ("flock lock true", "flock /tmp/lock", "flock /tmp/$ROW/lock cat old", "old"),
    ("install s.sh t.sh", "Use: cp", "cp s.sh t.sh; bash t.sh", "ran"),
    ("bzip2 -k lines", "bzip2 -c", "bzip2 -c lines >lines.bz2; bzip2 -dc lines.bz2", "two\none"),
    ("rmdir d", "rm -rf DIR", "rm -rf d; echo $?", "0"),
    ("rm -r d", "rm -rf DIR", "rm -rf d; echo $?", "0"),
    ("rm -r d && ls", "rm -rf DIR", "true", ""),
    (
        "mkdir e; echo x >e/f; rm e/f; sleep 1.1; echo x >e/g",
        "mkdir -p DIR",
        "mkdir -p e && echo x >e/g; cat e/g",
        "x",
    ),
    ("mkdir -p /tmp/$ROW/m/n; echo x >/tmp/$ROW/m/n/f; mv /tmp/$ROW/m m", "It was moved", "cat m/n/f", "x"),
    (
        "/usr/bin/python3 -c \"import shutil; shutil.copy('old', 'new')\"",
        "shutil.copyfile",
        "/usr/bin/python3 -c \"import shutil; shutil.copyfile('old', 'n2')\"; cat n2",
        "old",
    ),
    ("/usr/bin/python3 -c \"import shutil; shutil.copy2('old', 'new')\"", "shutil.copyfile", "true", ""),
    (
        "/usr/bin/python3 -c \"import shutil; shutil.copytree('d', 'e')\"",
        "cp -r A B",
        "rm -rf e; cp -r d e; cat e/f",
        "x",
    ),
    (
        "/usr/bin/python3 -c \"import shutil; shutil.move('old', 'new')\"",
        "not shutil.move",
        "/usr/bin/python3 -c \"import os, shutil; shutil.copyfile('old', 'n2'); os.remove('old')\"; cat "
        "n2; ls old",
        "old",
    ),
    (
        "/usr/bin/python3 -c \"import shutil; shutil.rmtree('d')\"",
        "ignore_errors",
        "mkdir d; echo x >d/f; /usr/bin/python3 -c \"import shutil; shutil.rmtree('d', "
        'ignore_errors=True)"; echo $?',
        "0",
    ),
    ("/usr/bin/python3 -c \"import os; os.replace('old', 'new')\"", "cannot be renamed", "true", ""),
    (
        "/usr/bin/python3 -c \"from pathlib import Path; Path('old').rename('new')\" 2>&1 | tail -1",
        "cannot be renamed",
        "true",
        "",
    ),
    (
        "/usr/bin/python3 -c \"open('old', 'a')\"",
        "mode 'w'",
        "/usr/bin/python3 -c \"t = open('old').read(); f = open('old', 'w'); f.write(t + 'x'); "
        'f.close()"; cat old',
        "old\nx",
    ),
    (
        "/usr/bin/python3 -c \"f = open('n', 'w+'); f.write('x'); f.seek(0); f.read()\"",
        "for reading and writing",
        "true",
        "",
    ),
    ("/usr/bin/python3 -c \"import os; os.chmod('s.sh', 0o755)\"", "Leave out os.chmod", "true", ""),
    ("/usr/bin/python3 -c \"import os; os.symlink('old', 'new')\"", "Links", "true", ""),
    (
        "node -e \"require('fs').renameSync('old', 'new')\"",
        "fs.copyFileSync",
        "node -e \"const fs = require('fs'); fs.copyFileSync('old', 'new'); fs.unlinkSync('old')\"; cat new",
        "old",
    ),
    (
        "node -e \"require('fs').appendFileSync('old', 'x')\"",
        "fs.writeFileSync",
        "node -e \"const fs = require('fs'); fs.writeFileSync('old', fs.readFileSync('old') + 'x')\"; cat "
        "old",
        "old\nx",
    ),
    ("node -e \"require('fs').symlinkSync('old', 'x')\"", "Links", "true", ""),
]  # fmt: skip

NEEDED = ("flock", "git", "sqlite3", "zip", "unzip", "gcc", "patch", "perl", "node", "make", "curl", "bzip2")


def _there(command: str) -> bool:
    message = command.replace("'", " ").split()
    return all(shutil.which(name, path="/usr/bin:/bin") for name in NEEDED if name in message)


@pytest.fixture
def row(mounted_sandbox: Mounted) -> str:
    name = f"hint-{next(_numbers)}"
    for path, body in FILES.items():
        mounted_sandbox.put(f"{HOME}{name}/{path}", body)
    mounted_sandbox.ok(f"mkdir -p /tmp/{name}")
    return name


def _run(mounted_sandbox: Mounted, row: str, command: str) -> tuple[int, str]:
    return mounted_sandbox.run(f"cd /mnt/w/{row}\nexport ROW={row}\nexec 2>&1\n{command}")


@pytest.mark.parametrize(
    "case",
    [row for row in ROWS if _there(row[0] + " " + row[2])],
    ids=lambda case: case[0][:50].replace("\n", ";"),
)
@pytest.mark.one_in(6)
def test_a_hint_that_works(mounted_sandbox: Mounted, row: str, case: tuple[str, str, str, str]) -> None:
    command, message, instead, printed = case
    code, output = _run(mounted_sandbox, row, command)
    given = hint(command, output, code)
    assert given is not None, (code, output)
    assert message in given, (given, output)
    _, after = _run(mounted_sandbox, row, instead)
    assert printed in after, after


def test_a_hint_for_tar_on_a_store_with_milliseconds_in_listings(mounted_sandbox: Mounted, row: str) -> None:
    mounted_sandbox.server.s3.list_fractions = True
    try:
        code, output = _run(mounted_sandbox, row, "tar cf /tmp/$ROW/a.tar d")
        given = hint("tar cf /tmp/a.tar d", output, code)
        assert given is not None, (code, output)
        assert "cp -r DIR /tmp/x && tar c -C /tmp/x" in given
        instead = "cp -r d /tmp/$ROW/x && tar cf a.tar -C /tmp/$ROW/x . && tar xOf a.tar ./f"
        assert _run(mounted_sandbox, row, instead) == (0, "x\n")
    finally:
        mounted_sandbox.server.s3.list_fractions = False


FINE = [
    "cat old; ls; grep -r x .",
    "grep nothing old",
    "cat missing",
    "cp old new && cat new",
    "rm -rf d && ls d",
    "python3 -c 'raise ValueError(1)'",
    "./missing.sh",
    "false",
    "chmod 644 /etc/nothing-there",
]


@pytest.mark.parametrize("command", FINE)
def test_no_hint_for_other_failures(mounted_sandbox: Mounted, row: str, command: str) -> None:
    code, output = _run(mounted_sandbox, row, command)
    assert hint(command, output, code) is None, output


def test_a_directory_renamed_before_any_file(alone: Mounted) -> None:
    alone.put(f"{HOME}d/f", b"x")
    alone.mount("/mnt/a")
    for command, message in (
        ("mv d e", "cp -r d e && rm -rf d"),
        ("/usr/bin/python3 -c \"import os; os.rename('d', 'e')\"", "cp -r and rm -rf"),
    ):
        code, output = alone.run(f"cd /mnt/a; exec 2>&1\n{command}")
        assert "Operation not permitted" in output
        assert message in (hint(command, output, code) or "")


def test_a_file_that_is_being_written(mounted_sandbox: Mounted, row: str) -> None:
    write = (
        "/usr/bin/python3 -c \"import time, os; f = open('busy', 'w'); f.write('x'); f.flush(); "
        "open('/tmp/$ROW/ready', 'w'); exec('while not os.path.exists(\\'/tmp/$ROW/over\\'): time.sleep(0.02)')\" & "
        "until test -e /tmp/$ROW/ready; do sleep 0.02; done; "
    )
    for command in ("cat busy", "rm busy", "cp lines busy", "tail -1 busy"):
        code, output = _run(
            mounted_sandbox,
            row,
            f"rm -f /tmp/$ROW/*; {write} {command}; code=$?; touch /tmp/$ROW/over; wait; exit $code",
        )
        assert "Operation not permitted" in output
        assert "is open elsewhere" in (hint(command, output, code) or ""), output


IO = (
    "cat old",
    "ls",
    "cp old new",
    "bash s.sh",
    "echo x >new",
    "cd d",
    "/usr/bin/python3 -c \"open('old')\"",
)


def test_a_mount_that_died(alone: Mounted) -> None:
    alone.put(f"{HOME}old", b"x")
    alone.mount("/mnt/a")
    alone.ok("pkill -9 mount-s3")
    for command in IO:
        code, output = alone.run(f"cd /mnt/a; exec 2>&1\n{command}")
        assert "Transport endpoint" in output
        assert "connection to S3 was lost" in (hint(f"cd /mnt/a; {command}", output, code) or ""), output


def test_credentials_that_ended(alone: Mounted) -> None:
    alone.put(f"{HOME}old", b"x")
    alone.mount("/mnt/a", env=alone.hand_over(alone.assume()))
    assert alone.ok("cat /mnt/a/old") == "x"
    alone.server.s3.expire_credentials()
    for command in (
        "cat old",
        "cp old new",
        "bash s.sh",
        "echo x >new",
        "/usr/bin/python3 -c \"open('old')\"",
    ):
        code, output = alone.run(f"cd /mnt/a; exec 2>&1\n{command}")
        assert "Input/output error" in output
        assert "tell the user" in (hint(command, output, code) or ""), output


def test_a_read_only_mount(alone: Mounted) -> None:
    alone.put("skills/a.md", b"x")
    alone.mount("/mnt/r", "skills/", "--read-only --allow-other")
    for command in ("echo x >/mnt/r/b", "touch /mnt/r/a.md", "sed -i s/x/y/ /mnt/r/a.md", "rm /mnt/r/a.md"):
        code, output = alone.run(f"exec 2>&1\n{command}")
        assert "read-only" in (hint(command, output, code) or ""), output


def _pytest_in_a_tar() -> bytes:
    packages = Path(sysconfig.get_paths()["purelib"])
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in ("pytest", "_pytest", "py.py", "pluggy", "iniconfig", "packaging", "pygments"):
            tar.add(packages / name, name, filter=lambda item: None if "__pycache__" in item.name else item)
    return packed.getvalue()


@pytest.mark.full
def test_caches_stay_on_local_disk(mounted_sandbox: Mounted, row: str) -> None:
    mounted_sandbox.put(f"{HOME}tools/{row}.tar", _pytest_in_a_tar())
    mounted_sandbox.ok(f"mkdir -p /tmp/{row}/tools && tar xf /mnt/w/tools/{row}.tar -C /tmp/{row}/tools")
    mounted_sandbox.put(f"{HOME}{row}/pkg/__init__.py", b"X = 1\n")
    mounted_sandbox.put(f"{HOME}{row}/test_x.py", b"import pkg\ndef test_x():\n    assert pkg.X == 2\n")
    exports = "".join(f"export {name}='{value}'\n" for name, value in LOCAL_CACHES.items())

    # Without pyc files: it would leave an emptied `__pycache__`, which the mount shows for another second. compileall
    # would then sometimes fail on creating its file in there, and not on renaming it.
    _, output = _run(
        mounted_sandbox,
        row,
        f"PYTHONPATH=/tmp/{row}/tools /usr/bin/python3 -B -m pytest -q -W error test_x.py",
    )
    assert "PytestCacheWarning" in output
    code, output = _run(mounted_sandbox, row, "/usr/bin/python3 -m compileall -q pkg")
    assert code != 0
    assert "Function not implemented" in output

    before = mounted_sandbox.keys(f"{HOME}{row}/")  # with what the runs above left there

    tools = f"{exports}export PYTHONPATH=/tmp/{row}/tools\n"
    code, output = _run(mounted_sandbox, row, f"{tools}/usr/bin/python3 -m pytest -q -W error test_x.py")
    assert (code, "1 failed" in output, "Warning" in output) == (1, True, False), output
    code, output = _run(
        mounted_sandbox, row, f"{tools}/usr/bin/python3 -m pytest -q --lf --strict-config -W error"
    )
    assert (code, "1 failed" in output) == (1, True), output
    assert _run(
        mounted_sandbox,
        row,
        f"{tools}/usr/bin/python3 -m compileall -q pkg && /usr/bin/python3 -c 'import pkg'",
    ) == (0, "")
    assert mounted_sandbox.keys(f"{HOME}{row}/") == before
    assert "pytest" in mounted_sandbox.ok(f"ls {LOCAL_CACHES['PYTHONPYCACHEPREFIX'].rpartition('/')[0]}")
