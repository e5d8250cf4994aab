"""Table of operations on a mount of S3: each system call's result or errno."""

from __future__ import annotations

import re
import shutil
from itertools import count

import pytest

from .mounted import HOME, Mounted

_numbers = count(1)


@pytest.fixture
def folder(mounted_sandbox: Mounted) -> str:
    """Make a folder for one row: `old` is in it, of S3, as are two lines in `lines`."""
    name = f"row-{next(_numbers)}"
    mounted_sandbox.put(f"{HOME}{name}/old", b"old\n")
    mounted_sandbox.put(f"{HOME}{name}/lines", b"one\ntwo\n")
    mounted_sandbox.put(f"{HOME}{name}/s.sh", b"#!/bin/sh\necho ran\n")
    return name


OPERATIONS = [
    ("rename a file", "print(err(os.rename, 'old', 'new'), os.path.exists('old'))", "ENOSYS True"),
    ("rename onto a file", "print(err(os.replace, 'old', 'lines'), open('lines').read())", "ENOSYS one two"),
    ("append to an existing file", "print(err(os.open, 'old', os.O_WRONLY | os.O_APPEND))", "EPERM"),
    ("write an existing file without truncating", "print(err(os.open, 'old', os.O_WRONLY))", "EPERM"),
    (
        "append to a new file",
        "f = os.open('new', W | os.O_APPEND); os.write(f, b'a'); os.write(f, b'b'); os.close(f);"
        "print(open('new').read())",
        "ab",
    ),
    (
        "overwrite",
        "f = os.open('old', os.O_WRONLY | os.O_TRUNC); os.write(f, b'x'); os.close(f); print(open('old').read())",
        "x",
    ),
    (
        "open for reading and writing without truncating",
        "f = os.open('old', os.O_RDWR); print(os.read(f, 9), err(os.write, f, b'x'), err(os.close, f))",
        r"b'old\n' EBADF ok",
    ),
    (
        "open for reading and writing, new or truncated",
        "for n in 'new', 'old':\n f = os.open(n, os.O_RDWR | os.O_CREAT | os.O_TRUNC); os.write(f, b'xy');"
        " print(err(os.pread, f, 1, 0)); os.close(f); print(open(n).read())",
        "EBADF xy EBADF xy",
    ),
    ("O_SYNC", "print(*(err(os.open, n, W | os.O_SYNC) for n in ('new', 'old')))", "EINVAL EINVAL"),
    ("O_DSYNC", "print(err(os.open, 'new', W | os.O_DSYNC))", "EINVAL"),
    (
        "write out of order",
        "f = os.open('new', W); os.write(f, b'abc'); print(err(os.pwrite, f, b'x', 0), err(os.write, f, b'd'),"
        " err(os.close, f)); time.sleep(0.2); print(os.path.exists('new'))",
        "EINVAL EINVAL EINVAL False",
    ),
    (
        "write out of order over an existing file",
        "f = os.open('old', os.O_WRONLY | os.O_TRUNC); os.write(f, b'abc'); print(err(os.pwrite, f, b'x', 9),"
        " err(os.close, f), open('old').read())",
        "EINVAL EINVAL old",
    ),
    (
        "ftruncate while writing",
        "f = os.open('new', W); os.write(f, b'abc'); print(err(os.ftruncate, f, 1)); os.close(f);"
        " print(open('new').read())",
        "ok abc",
    ),
    (
        "ftruncate and truncate a committed file",
        "f = os.open('old', os.O_RDWR); print(err(os.ftruncate, f, 1)); os.close(f);"
        " print(err(os.truncate, 'old', 0), open('old').read())",
        "EPERM EPERM old",
    ),
    (
        "chmod, chown and utime of a committed file",
        "print(err(os.chmod, 'old', 0o755), err(os.chown, 'old', 0, 0), err(os.utime, 'old'))",
        "EPERM EPERM EPERM",
    ),
    (
        "chmod, chown and utime while writing",
        "f = os.open('new', W); print(err(os.fchmod, f, 0o755), err(os.fchown, f, 0, 0), err(os.utime, f, (1, 1)));"
        " os.write(f, b'x'); os.close(f); s = os.stat('new'); print(oct(s.st_mode), s.st_mtime > 9)",
        "ok ok ok 0o100644 True",
    ),
    ("symlink", "print(err(os.symlink, 'old', 'new'))", "EPERM"),
    ("hard link", "print(err(os.link, 'old', 'new'))", "EPERM"),
    ("mkdir twice", "print(err(os.mkdir, 'd'), err(os.mkdir, 'd'), os.listdir('d'))", "ok EEXIST []"),
    ("remove a local folder", "os.mkdir('d'); print(err(os.rmdir, 'd'), os.path.exists('d'))", "ok False"),
    (
        "remove a folder of S3",
        "os.mkdir('d'); write('d/f', b'x'); print(err(os.rmdir, 'd'), err(os.rmdir, 'old'))",
        "EPERM ENOTDIR",
    ),
    (
        "remove a local folder with a file being written",
        "os.mkdir('d'); f = os.open('d/f', W); print(err(os.rmdir, 'd')); os.close(f)",
        "ENOTEMPTY",
    ),
    (
        "an emptied folder",
        "os.mkdir('d'); write('d/f', b'x'); os.unlink('d/f'); print(err(os.rmdir, 'd')); time.sleep(1.1);"
        " print(os.path.exists('d'), err(os.open, 'd/g', W))",
        "ENOENT False ENOENT",
    ),
    (
        "read while it is written",
        "f = os.open('new', W); os.write(f, b'x'); print(err(os.open, 'new', os.O_RDONLY)); os.close(f);"
        " print(open('new').read())",
        "EPERM x",
    ),
    (
        "unlink while it is written",
        "f = os.open('new', W); os.write(f, b'x'); print(err(os.unlink, 'new')); os.close(f);"
        " print(err(os.unlink, 'new'), os.path.exists('new'))",
        "EPERM ok False",
    ),
    (
        "a second writer",
        "f = os.open('old', W | os.O_TRUNC); print(err(os.open, 'old', W | os.O_TRUNC)); os.close(f)",
        "EPERM",
    ),
    (
        "a writer beside a reader",
        "f = os.open('old', os.O_RDONLY); print(err(os.open, 'old', W | os.O_TRUNC)); os.close(f);"
        " print(err(write, 'old', b'x'))",
        "EPERM ok",
    ),
    (
        "concurrent readers",
        "a, b = open('old'), open('old'); print(a.read(), b.read())",
        "old old",
    ),
    (
        "fsync",
        "f = os.open('new', W); os.write(f, b'abc'); print(err(os.fsync, f), open('new').read(),"
        " err(os.write, f, b'd'), err(os.fsync, f), err(os.close, f), open('new').read())",
        "ok abc EIO ok ok abc",
    ),
    (
        "modes",
        "f = os.open('new', W, 0o777); os.close(f); os.mkdir('d', 0o700);"
        " print(*(oct(os.stat(n).st_mode) for n in ('old', 'new', 'd', '.')), os.stat('old').st_uid)",
        "0o100644 0o100644 0o40755 0o40755 0",
    ),
    ("execute", "print(err(os.execv, 's.sh', ['s.sh']))", "EACCES"),
    (
        "names that are not UTF-8",
        r"print(err(os.open, b'\xff', W), err(os.mkdir, b'\xff'), err(os.stat, b'\xff'))",
        "EINVAL EINVAL EINVAL",
    ),
    ("names that are", "write('schön 好.txt', b'x'); print(os.listdir())", r"['lines', 'old', 's.sh', 'schön 好.txt']"),
    ("make a pipe", "print(err(os.mkfifo, 'p'))", "EINVAL"),
    ("remove what is not there", "print(err(os.unlink, 'no'), err(os.rmdir, 'no'))", "ENOENT ENOENT"),
    ("unlink a folder, list a file", "print(err(os.unlink, '.'), err(os.listdir, 'old'))", "EISDIR ENOTDIR"),
    ("extended attributes", "print(err(os.setxattr, 'old', 'user.a', b'x'))", "ENOTSUP"),
    ("lock", "import fcntl; f = open('old'); print(err(fcntl.flock, f, fcntl.LOCK_EX))", "ok"),
    ("map", "import mmap; f = open('old'); print(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)[:])", r"b'old\n'"),
    ("shutil.copyfile", "print(err(shutil.copyfile, 'old', 'new'), open('new').read())", "ok old"),
    ("shutil.copy", "print(err(shutil.copy, 'old', 'new'), open('new').read())", "EPERM old"),
    ("shutil.copy2", "print(err(shutil.copy2, 'old', 'new'), open('new').read())", "EPERM old"),
    (
        "shutil.move",
        "print(err(shutil.move, 'old', 'new'), open('new').read(), os.path.exists('old'))",
        "EPERM old True",
    ),
    (
        "read a database",
        "import sqlite3; c = sqlite3.connect('/tmp/t.db'); c.execute('create table if not exists t (a)');"
        " c.execute('insert into t values (7)'); c.commit(); c.close(); shutil.copyfile('/tmp/t.db', 't.db');"
        " print(sqlite3.connect('t.db').execute('select a from t').fetchone())",
        "(7,)",
    ),
    (
        "write a database",
        "import sqlite3\ntry:\n sqlite3.connect('new.db').execute('create table t (a)')\n"
        "except sqlite3.OperationalError as error: print(error)",
        "(disk I/O error|unable to open database file)",
    ),
    (
        "write an archive",
        "import zipfile\nf = zipfile.ZipFile('z.zip', 'w')\n"
        "def close():\n f.writestr('a', 'b'); f.close()\n"
        "print(err(close)); f.fp = None",
        "(EINVAL|EBADF|EIO)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "program", "expected"), OPERATIONS, ids=[row[0] for row in OPERATIONS])
@pytest.mark.one_in(3)
def test_operation(mounted_sandbox: Mounted, folder: str, name: str, program: str, expected: str) -> None:
    printed = mounted_sandbox.python(program, f"/mnt/w/{folder}")
    if expected.startswith("(") and "|" in expected:
        assert re.fullmatch(expected, printed), printed
    else:
        assert printed == expected


# The script, its exit code, what its output is to contain, and a program without which the row is not run.
COMMANDS = [
    ("cp old new && cat new", 0, "old", ""),
    ("mkdir -p /tmp/t/u && echo x >/tmp/t/u/v && cp -r /tmp/t d && cat d/u/v", 0, "x", ""),
    ("echo new >f; cat f", 0, "new", ""),
    ("cat >f <<'E'\na\nb\nE\nwc -l <f", 0, "2", ""),
    ("printf 'print(6*7)' >p.py && python3 p.py", 0, "42", ""),
    ("curl -sS -o f file:///etc/hostname && diff f /etc/hostname", 0, "", "curl"),
    ("rm old && ls", 0, "lines", ""),
    ("seq 300000 | tee f | md5sum; md5sum <f", 0, r"^(\w+)  -\n\1  -$", ""),
    ("( echo a; /bin/echo b ) >f; cat f", 0, "a\nb", ""),
    ("{ echo a; /bin/echo b; } >f; cat f", 0, "a\nb", ""),
    ("dd if=/dev/zero of=f bs=64K count=40 2>/dev/null && stat -c %s f", 0, "2621440", ""),
    ("touch new && ls new", 0, "new", ""),
    ("bash s.sh", 0, "ran", ""),
    ("sort lines -r >f; cat f", 0, "two\none", ""),
    ("find . -type f | sort | head -1; grep -r two .", 0, "lines:two", ""),
    ("sed -i s/one/1/ lines", 4, "Function not implemented", ""),
    ("perl -pi -e s/one/1/ lines", None, "(Function not implemented|Can't rename|Operation not permitted)", "perl"),
    ("mv old new", 1, "Function not implemented", ""),
    ("echo x >>old", 1, "Operation not permitted", ""),
    ("echo x | tee -a old", 1, "Operation not permitted", ""),
    ("touch old", 1, "Operation not permitted", ""),
    ("chmod +x s.sh && ./s.sh", 1, "Operation not permitted", ""),
    ("./s.sh", 126, "Permission denied", ""),
    ("git init .", None, "(Function not implemented|Operation not permitted)", "git"),
    (
        "G=$(mktemp -d) && git init -q --separate-git-dir=$G/g . && git -c user.name=a -c user.email=b add old && "
        "git -c user.name=a -c user.email=b commit -qm m && git log --oneline | wc -l",
        0, "1", "git",
    ),
    ("/usr/bin/python3 -m venv --without-pip v", 1, "(Operation not permitted|Function not implemented)", ""),
    ("cp old x; zip z.zip x", None, "(zip error|Operation not permitted|I/O error|Could not create)", "zip"),
    ("ln -s old new", 1, "Operation not permitted", ""),
    ("ln old new", 1, "Operation not permitted", ""),
    ("sort -o lines lines", 2, "(Operation not permitted|open failed)", ""),
    ("printf 'int main(){return 0;}' >/tmp/a.c; gcc -o a /tmp/a.c", 1, "ld", "gcc"),
    (
        "printf -- '--- old\n+++ old\n@@ -1 +1 @@\n-old\n+new\n' | patch -p0",
        2, "(Function not implemented|not permitted)", "patch",
    ),
    ("mkdir d; echo x >d/f; rm -r d; echo rc $?", 0, "rc 1", ""),
    ("mkdir d; echo x >d/f; rm -rf d; echo rc $?; sleep 1.1; ls d", 2, "rc 0", ""),
    (
        "mkdir -p /tmp/a/b && echo x >/tmp/a/b/c && tar cf /tmp/a.tar -C /tmp a; tar xf /tmp/a.tar; echo rc $?; "
        "cat a/b/c",
        0, "rc 2\nx", "",
    ),
    # as it is without the two options for who is not root
    (
        "mkdir -p /tmp/m/b && echo x >/tmp/m/b/c && tar cf /tmp/m.tar -C /tmp m; "
        "tar xmf /tmp/m.tar --no-same-owner --no-same-permissions; echo rc $?; cat m/b/c",
        0, "rc 0\nx", "",
    ),
    ("cp lines /tmp/l && sed -i s/one/1/ /tmp/l && cp /tmp/l lines && cat lines", 0, "1\ntwo", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "code", "output"),
    [row[:3] for row in COMMANDS if not row[3] or shutil.which(row[3], path="/usr/bin:/bin")],
    ids=lambda value: value.replace("\n", ";")[:40] if isinstance(value, str) and " " in value else "",
)
@pytest.mark.one_in(3)
def test_command(mounted_sandbox: Mounted, folder: str, script: str, code: int | None, output: str) -> None:
    exit_code, printed = mounted_sandbox.run(f"cd /mnt/w/{folder}\n{script} 2>&1")
    if code is None:
        assert exit_code != 0
    else:
        assert exit_code == code, printed
    assert re.search(output, printed, re.MULTILINE), printed
