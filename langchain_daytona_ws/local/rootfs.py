"""The disk of a sandbox: its root folder, and the host's programs that are bound into it read-only."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

USER = "daytona"
HOME = "/home/daytona"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Program folders outside of /usr; on merged systems they are symlinks into /usr.
PROGRAM_FOLDERS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
WRITABLE_FOLDERS = (
    "home/daytona",
    "root",
    "tmp",
    "var/tmp",
    "mnt",
    "workspace",
    "opt",
    "srv",
    "media",
    "etc",
    "var/log",
)
MOUNT_POINTS = ("usr", "proc", "dev", "run", "etc/ssl", "etc/alternatives")
# Files that programs need for libraries, names, certificates and defaults. Files that identify the host are not copied.
COPIED_ETC = (
    "bash.bashrc", "debian_version", "inputrc", "ld.so.cache", "ld.so.conf", "localtime", "magic",
    "mime.types", "nsswitch.conf", "os-release", "profile", "protocols", "resolv.conf", "services",
    "shells", "timezone",
)  # fmt: skip
COPIED_ETC_FOLDERS = (
    "ld.so.conf.d",
    "python3",
    "python3.10",
    "python3.11",
    "python3.12",
    "python3.13",
    "python3.14",
    "terminfo",
    "zsh",
)
BOUND_ETC = ("/etc/ssl", "/etc/alternatives")


def build(root: Path, hostname: str, owner: int | None) -> None:
    """Fill the empty folder `root`. Its files belong to the host's uid and gid `owner`; None for the server's user."""
    for folder in WRITABLE_FOLDERS + MOUNT_POINTS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("tmp", "var/tmp"):
        (root / folder).chmod(0o1777)
    for name in PROGRAM_FOLDERS:
        host = Path(name)
        if host.is_symlink():
            (root / name[1:]).symlink_to(host.readlink())
        elif host.is_dir():
            (root / name[1:]).mkdir()
    _fill_etc(root / "etc", hostname)
    if owner is not None:
        _chown_tree(root, owner)


def program_binds() -> list[tuple[str, str]]:
    """Return the read-only binds, as pairs of a path on the host and a path in the sandbox."""
    folders = [
        "/usr",
        *(name for name in PROGRAM_FOLDERS if os.path.isdir(name) and not os.path.islink(name)),
    ]
    return [(name, name) for name in (*folders, *BOUND_ETC) if os.path.isdir(name)]


def _fill_etc(etc: Path, hostname: str) -> None:
    # The sandbox's only uid is 0: the users `daytona` and root share it. Programs show the name of the first entry.
    (etc / "passwd").write_text(
        f"{USER}:x:0:0:{USER}:{HOME}:/bin/bash\n"
        "root:x:0:0:root:/root:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    )
    (etc / "group").write_text(f"{USER}:x:0:\nroot:x:0:\nnogroup:x:65534:\n")
    (etc / "hostname").write_text(f"{hostname}\n")
    (etc / "hosts").write_text(f"127.0.0.1 localhost {hostname}\n::1 localhost ip6-localhost ip6-loopback\n")
    (etc / "mtab").symlink_to("../proc/self/mounts")
    for name in COPIED_ETC:
        source = Path("/etc") / name
        if source.is_file() and os.access(source, os.R_OK):
            shutil.copyfile(source, etc / name)
    for name in COPIED_ETC_FOLDERS:
        source = Path("/etc") / name
        if source.is_dir():
            shutil.copytree(
                source, etc / name, symlinks=True, ignore_dangling_symlinks=True, dirs_exist_ok=True
            )


def _chown_tree(root: Path, owner: int) -> None:
    os.chown(root, owner, owner)
    for parent, folders, files in os.walk(root):
        for name in folders + files:
            os.chown(os.path.join(parent, name), owner, owner, follow_symlinks=False)
