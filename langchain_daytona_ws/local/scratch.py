"""The server's folder for sandbox disks: its own while it runs, and gone afterwards, even when it was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
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
    """Remove a folder with all that is in it, also where its permissions forbid that to their owner."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        return
    folder.chmod(0o700)
    for parent, names, _ in os.walk(folder):
        for name in names:
            inner = os.path.join(parent, name)
            if not os.path.islink(inner):
                os.chmod(inner, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    for left in parent.glob(f"{PREFIX}*"):
        # Another user's folder cannot be opened, one in use cannot be locked, one just removed is not there.
        with contextlib.suppress(OSError), open(left / LOCK, "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(left)
