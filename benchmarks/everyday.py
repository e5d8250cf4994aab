"""Twenty everyday commands of development, each in a new directory of the workspace."""

from __future__ import annotations

import shlex

from langchain_daytona_ws import WorkspaceSession

TIMEOUT_S = 60
GIT = "git -c user.name=agent -c user.email=agent@example.com"
COMMANDS = {
    "write, copy and delete a file": "echo 1 > a; cp a b; rm a; test $(cat b) = 1",
    "search a tree": (
        "mkdir -p d/e; echo needle > d/e/f; echo 1 > d/g; test $(grep -rl needle .) = ./d/e/f; "
        "test $(find . -type f | wc -l) = 2"
    ),
    "delete a tree": "mkdir -p d/e; echo 1 > d/e/f; echo 2 > d/g; rm -r d; test ! -e d",
    "write and read 20 MiB": "head -c 20971520 /dev/zero > big; test $(cat big | wc -c) = 20971520",
    "append to a file": "echo one > log; echo two >> log; test $(wc -l < log) = 2",
    "edit in place with sed": "echo red > color; sed -i s/red/blue/ color; grep -qx blue color",
    "replace by a temporary file": "echo old > state; echo new > state.tmp; mv state.tmp state; grep -qx new state",
    "rename a directory": "mkdir -p src/pkg; echo 1 > src/pkg/a; mv src lib; grep -qx 1 lib/pkg/a",
    "make a script executable": "printf '#!/bin/sh\\necho ran\\n' > go; chmod +x go; test $(./go) = ran",
    "symbolic link": "echo 1 > target; ln -s target link; test $(cat link) = 1",
    "write in the middle of a file": (
        "head -c 4096 /dev/zero > data; printf AB | dd of=data bs=1 seek=100 conv=notrunc status=none; "
        "test $(dd if=data bs=1 skip=100 count=2 status=none) = AB; test $(stat -c %s data) = 4096"
    ),
    "truncate": "echo abcdef > text; truncate -s 3 text; test $(cat text) = abc",
    "file lock": "flock lock sh -c 'echo 1 > locked'; test $(cat locked) = 1",
    "copy a tree": (
        "mkdir a; echo 1 > a/run; chmod 755 a/run; ln -s run a/link; cp -a a b; test -x b/run; test -L b/link"
    ),
    "pack and unpack with tar": (
        "mkdir d; echo 1 > d/run; chmod 755 d/run; tar cf d.tar d; rm -r d; tar xf d.tar; test -x d/run"
    ),
    "commit with git": (
        f"echo 1 > file; git init -q .; git add file; {GIT} commit -qm first; test -z \"$(git status --porcelain)\""
    ),
    "branch, merge and gc with git": (
        f"git init -q -b main .; echo 1 > a; git add a; {GIT} commit -qm a; git checkout -qb topic; echo 2 > b; "
        f"git add b; {GIT} commit -qm b; git checkout -q main; {GIT} merge -q --no-ff -m merged topic; git gc -q; "
        "git fsck --no-dangling"
    ),
    "virtual environment": (
        "python3 -m venv --without-pip env; env/bin/python -c 'import sys; assert sys.prefix.endswith(\"env\")'"
    ),
    "SQLite database": (
        "python3 -c 'import sqlite3; db = sqlite3.connect(\"x.db\"); db.execute(\"pragma journal_mode=wal\"); "
        "db.execute(\"create table t(a)\"); db.execute(\"insert into t values (1)\"); db.commit()'; "
        "python3 -c 'import sqlite3; "
        "assert sqlite3.connect(\"x.db\").execute(\"select a from t\").fetchall() == [(1,)]'"
    ),
    "100 small files": (
        "python3 -c 'import pathlib; [pathlib.Path(str(i)).write_text(str(i)) for i in range(100)]'; "
        "test $(ls | wc -l) = 100; rm *; test -z \"$(ls)\""
    ),
}  # fmt: skip


def failing(session: WorkspaceSession) -> list[str]:
    """Run all commands, one call each, and return the names of those that fail."""
    return [name for number, name in enumerate(COMMANDS) if not _works(session, f"everyday-{number}", name)]


def _works(session: WorkspaceSession, directory: str, name: str) -> bool:
    command = f"mkdir {directory} && cd {directory} && bash -ec {shlex.quote(COMMANDS[name])}"
    return session.run(command, timeout_s=TIMEOUT_S).exit_code == 0
