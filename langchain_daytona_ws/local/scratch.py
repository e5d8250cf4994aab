"""The server's folder for sandbox disks: its own while it runs, and gone afterwards, even when it was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "local-daytona-"
LOCK = "lock"


@contextlib.contextmanager
def folder(parent: Path | None) -> Iterator[Path]:
    """Yield a new folder in `parent` (created if missing; None for the system's), removed at the end.

    Also removes what servers left there that were killed before they could: folders whose lock nobody holds.
    """
    chosen = Path(tempfile.gettempdir()) if parent is None else parent
    chosen.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(chosen)
    # Locked before it gets the name by which others look for abandoned ones.
    unnamed = Path(tempfile.mkdtemp(prefix=f"starting-{PREFIX}", dir=chosen))
    root = unnamed.with_name(unnamed.name.removeprefix("starting-"))
    try:
        with open(unnamed / LOCK, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            unnamed.chmod(0o711)  # sandboxes pass through it to their own folder, and can list nothing
            unnamed.rename(root)
            yield root
    finally:
        remove(root)
        remove(unnamed)


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, also where its permissions forbid that to their owner.

    By programs, since shutil gives up on a tree deeper than Python recurses and on paths longer than Linux takes.
    """
    _remove_once(folder)
    if os.geteuid() == 0 or not os.path.lexists(folder):
        return
    _run("chmod", "-R", "u+rwX", "--", folder)  # which follows no symlink that it meets below
    _remove_once(folder)


def _remove_once(folder: Path) -> None:
    # The lock last: a folder without it would be taken for no server's if this is killed on the way.
    with contextlib.suppress(OSError):
        inner = [folder / name for name in os.listdir(folder) if name != LOCK]
        if inner:
            _run("rm", "-rf", "--one-file-system", "--", *inner)
    _run("rm", "-rf", "--one-file-system", "--", folder)


def _run(*argv: str | Path) -> None:
    nothing = subprocess.DEVNULL
    subprocess.run(argv, stdin=nothing, stdout=nothing, stderr=nothing, check=False)


def _remove_abandoned(parent: Path) -> None:
    for left in parent.glob(f"{PREFIX}*"):
        # Another user's folder may be a trap, and its lock too; one in use cannot be locked, one just removed is
        # not there.
        with contextlib.suppress(OSError):
            status = left.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                continue
            with open(left / LOCK, "r+", opener=_open_no_link) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(left)


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)
