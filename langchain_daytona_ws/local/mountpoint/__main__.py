"""The program mount-s3: parses the command line, forks, mounts, and reports success."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import arguments
from .connect import MountFailed

START_S = 30.0
RETRY_S = 0.5
THREADS = 16
DEVICE = "/dev/fuse"


def main(start_s: float = START_S) -> None:
    """Run mount-s3. Without `--foreground`, the parent waits at most `start_s` seconds for the child's mount."""
    options = arguments.parse(sys.argv[1:])
    options.uid = os.geteuid() if options.uid is None else options.uid
    options.gid = os.getegid() if options.gid is None else options.gid
    source = (
        f"prefix {options.prefix} of bucket {options.bucket}"
        if options.prefix
        else f"bucket {options.bucket}"
    )
    message = f"{source} is mounted at {options.directory}"
    try:
        if options.foreground:
            _serve(options, lambda: print(message, flush=True))
        else:
            _in_background(options, message, start_s)
    except MountFailed as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(1)


def _in_background(options: argparse.Namespace, message: str, start_s: float) -> None:
    """Fork; the parent prints `message` when the child has mounted. Both share a process group, as in the original."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            _serve(options, lambda: _detach(write))
        except MountFailed:
            os.write(write, b"1")
            raise
        return
    os.close(write)
    ready, _, _ = select.select([read], [], [], start_s)
    if not ready:
        os.kill(child, signal.SIGTERM)
        raise MountFailed(f"Timeout after {start_s:.0f} seconds while waiting for mount process to be ready")
    if os.read(read, 1) != b"0":
        os.waitpid(child, 0)
        raise MountFailed("Failed to create mount process")
    print(message, flush=True)


def _detach(write: int) -> None:
    """Report success to the parent, and redirect stdin, stdout and stderr to /dev/null."""
    os.write(write, b"0")
    os.close(write)
    devnull = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(devnull, descriptor)


def _serve(options: argparse.Namespace, ready: Callable[[], None]) -> None:
    """Mount, call `ready` when the kernel has connected, and serve until the unmount."""
    _log(options)
    _check_mount_point(options.directory)
    # mfusepy reads this variable on import. By default it prefers libfuse 2, which the original's package installs.
    os.environ["FUSE_LIBRARY_NAME"] = "fuse3"
    # Imported after the checks above, so that their errors are reported first.
    import mfusepy

    from .bucket import Bucket
    from .filesystem import FileSystem, Mount
    from .tree import Tree

    bucket = Bucket(_client(options), options.bucket, options.prefix)
    _check_device()
    lifetime = options.metadata_ttl
    if lifetime is None and options.cache is not None:
        lifetime = 60.0
    files = FileSystem(bucket, Tree(bucket, lifetime), options, ready)
    flags: dict[str, Any] = {"default_permissions": True, "noatime": True, "ro": options.read_only}
    flags |= {"allow_other": options.allow_other, "auto_unmount": options.auto_unmount}
    if (mfusepy.fuse_version_major, mfusepy.fuse_version_minor) >= (3, 12):
        # Both limits are set: libfuse 3.14 warns if max_idle_threads has its default.
        flags["max_threads"] = flags["max_idle_threads"] = options.max_threads or THREADS
    try:
        Mount(files, os.path.abspath(options.directory), foreground=True, fsname="mountpoint-s3", **flags)
    except RuntimeError as error:
        raise MountFailed("Failed to create FUSE session", f"libfuse ended with {error}") from error
    finally:
        _unmount(options.directory)


def _client(options: argparse.Namespace) -> Any:
    """Connect to S3; repeat while S3 cannot be reached. Only the parent of a background process has a time-out."""
    from . import connect

    while True:
        try:
            return connect.connect(options)
        except connect.Unreachable:
            time.sleep(RETRY_S)


def _unmount(directory: str) -> None:
    """Unmount the path, even if another file system is mounted there by now (as the original does)."""
    with contextlib.suppress(OSError):
        subprocess.run(["umount", directory], stderr=subprocess.DEVNULL, check=False)


def _check_mount_point(directory: str) -> None:
    if not os.path.exists(directory):
        raise MountFailed("Failed to create mount point", f"mount point {directory} does not exist")
    if not os.path.isdir(directory):
        raise MountFailed("Failed to create mount point", f"mount point {directory} is not a directory")
    mounted = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    if directory.rstrip("/").replace(" ", "\\040") in mounted:
        raise MountFailed("Failed to create mount point", f"mount point {directory} is already mounted")


def _check_device() -> None:
    try:
        os.close(os.open(DEVICE, os.O_RDWR))
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise MountFailed(
                "Failed to create FUSE session", "fuse: device not found, try 'modprobe fuse' first"
            ) from error
        reason = f"{error.strerror} (os error {error.errno})"
        raise MountFailed(
            "Failed to create FUSE session", f"fuse: failed to open {DEVICE}: {reason}"
        ) from error


def _log(options: argparse.Namespace) -> None:
    """Log to a file in `log_directory`; without `log_directory`, or with `no_log`, log nothing.

    Without `log_directory`, the original logs to syslog, which sandboxes do not have.
    """
    if options.no_log or options.log_directory is None:
        logging.disable(logging.CRITICAL)
        return
    folder = Path(options.log_directory)
    folder.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime())
    logging.basicConfig(
        filename=folder / f"mountpoint-s3-{stamp}.{os.getpid()}.log",
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


if __name__ == "__main__":
    main()
