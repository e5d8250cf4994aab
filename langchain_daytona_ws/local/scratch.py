"""The temporary folder for sandbox disks and programs. The next server removes the folders of killed servers."""

from __future__ import annotations

import compileall
import contextlib
import fcntl
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "local-daytona-"
LOCK = "lock"


@contextlib.contextmanager
def folder(parent: Path | None) -> Iterator[Path]:
    """Create a folder in `parent`, yield it, and remove it at the end.

    First remove the folders of killed servers: this user's server folders in `parent` whose lock is free. If `parent`
    is missing, create it; None is the system's temporary folder.
    """
    folder_parent = Path(tempfile.gettempdir()) if parent is None else parent
    folder_parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder_parent)
    # Lock the folder first, then give it the prefix by which other servers find abandoned folders.
    unnamed = Path(tempfile.mkdtemp(prefix=f"starting-{PREFIX}", dir=folder_parent))
    root = unnamed.with_name(unnamed.name.removeprefix("starting-"))
    try:
        with open(unnamed / LOCK, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            unnamed.chmod(0o711)  # sandboxes can enter their own folder in it, but not list it
            unnamed.rename(root)
            yield root
    finally:
        remove(root)
        remove(unnamed)


def copy_compiled(package: Path, target: Path) -> None:
    """Copy a package with its compiled files: a Python of the same version starts faster with them."""
    compileall.compile_dir(package, quiet=2)  # only changed files; no file if the folder is read-only
    unfinished = shutil.ignore_patterns("*.pyc.*")  # another server may be compiling now
    shutil.copytree(package, target, ignore=unfinished)


def remove(folder: Path) -> None:
    """Remove a folder and its contents, even if the permissions of inner folders forbid it.

    Uses `rm`, because shutil fails on trees deeper than Python's recursion limit and on paths longer than PATH_MAX.
    """
    _remove_once(folder)
    if os.geteuid() == 0 or not os.path.lexists(folder):
        return
    _run("chmod", "-R", "u+rwX", "--", folder)  # does not follow symlinks in the folder
    _remove_once(folder)


def _remove_once(folder: Path) -> None:
    # Remove the lock last: if this process is killed earlier, a later server finds the folder and removes it.
    with contextlib.suppress(OSError):
        inner = [folder / name for name in os.listdir(folder) if name != LOCK]
        if inner:
            _run("rm", "-rf", "--one-file-system", "--", *inner)
    _run("rm", "-rf", "--one-file-system", "--", folder)


def _run(*argv: str | Path) -> None:
    devnull = subprocess.DEVNULL
    subprocess.run(argv, stdin=devnull, stdout=devnull, stderr=devnull, check=False)


def _remove_abandoned(parent: Path) -> None:
    for found in parent.glob(f"{PREFIX}*"):
        # Other users' folders are not trusted. OSError: the folder is in use, or has just been removed.
        with contextlib.suppress(OSError):
            status = found.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                continue
            with open(found / LOCK, "r+", opener=_open_nofollow) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(found)


def _open_nofollow(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)
