"""The part of the snapshot's Dockerfile for the mount helper.

The mount helper mounts workspaces and skills. It is the only program that the sandbox's unprivileged account may run as
root.
"""

from __future__ import annotations

import hashlib
import shlex

from langchain_daytona_ws._core.guest_rpc.payload import guest_source
from langchain_daytona_ws._core.mount.manager import mounter_source
from langchain_daytona_ws._guest.mount import HELPER
from langchain_daytona_ws._guest.mount_credentials import HOME

SUDOERS = "/etc/sudoers.d/langchain-daytona-ws"


def account(user: str) -> str:
    """Return the RUN instruction for the account: create it, remove it from trusted groups, lock root's password."""
    return _ACCOUNT.replace("@user@", user)


def helper(user: str, workspaces: str, skills: str) -> str:
    """Return the RUN instructions that install the mount helper, and allow the account to run only the helper as root.

    The Dockerfile contains each program as readable lines, with its checksum. The helper may mount workspaces below the
    directory ``workspaces``, and skills at the directory ``skills``.
    """
    steps = _HELPER
    for name, text in (
        ("mounter", _written(mounter_source(workspaces, skills))),
        ("guard", _written(guest_source("guard"))),
        ("rule", _RULE),
        ("user", user),
        ("workspaces", workspaces),
        ("skills", skills),
        ("helper", HELPER),
        ("home", HOME),
        ("sudoers", SUDOERS),
    ):
        steps = steps.replace(f"@{name}@", text)
    return steps


def _written(program: str) -> str:
    """Return the shell commands that write a program to "$file" and check it."""
    lines = "".join(f"        {shlex.quote(line)} \\\n" for line in program.splitlines())
    checksum = hashlib.sha256(program.encode()).hexdigest()
    return (
        f"printf '%s\\n' \\\n{lines}        >\"$file\"; \\\n"
        f'    [ "$(sha256sum <"$file")" = "{checksum}  -" ] || fail "the builder has altered the program"'
    )


_ACCOUNT = r"""
# The account that runs commands. It must become root only through the helper. So remove it from the groups that sudo,
# su and the machine's devices trust, and lock root's password, because su accepts the password of the base image.
RUN set -eu; \
    fail() { echo "ERROR: s3-snapshot: $1" >&2; exit 1; }; \
    id -u @user@ >/dev/null 2>&1 || useradd --create-home --shell /bin/bash @user@; \
    for group in root sudo wheel admin adm disk docker kmem lxd shadow staff; do \
        case " $(id -Gn @user@) " in *" $group "*) gpasswd --delete @user@ "$group" || true ;; esac; \
        case " $(id -Gn @user@) " in \
            *" $group "*) fail "the account @user@ stays in the group $group; choose another --user" ;; \
        esac; \
    done; \
    [ "$(id -u @user@)" != 0 ] || fail "the account @user@ has the uid of root; choose another --user"; \
    passwd --lock root
""".strip()

_RULE = '(root) NOPASSWD: @helper@ ""'

_HELPER = r"""
# The mount helper: it reads its request from standard input and accepts no arguments.
RUN set -eu; \
    fail() { echo "ERROR: s3-snapshot: $1" >&2; exit 1; }; \
    python=; \
    for one in /usr/bin/python3 "$(command -v python3)"; do \
        if [ -z "$python" ] && "$one" -IS -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then \
            python="$("$one" -IS -c 'import os, sys; print(os.path.realpath(sys.executable))')"; \
        fi; \
    done; \
    file="$(mktemp)"; \
    @mounter@; \
    echo "#!$python -IS" >@helper@; \
    cat "$file" >>@helper@; \
    chmod 0755 @helper@; \
    echo '{}' >"$file"; \
    @helper@ <"$file" >"$file.said"; \
    grep -q '"code": "helper_version"' "$file.said" || fail "the mount helper does not run"; \
    rm "$file" "$file.said"

# The account may run only the helper as root. sudo must not log the helper's input, which contains credentials.
RUN set -eux; \
    fail() { echo "ERROR: s3-snapshot: $1" >&2; exit 1; }; \
    printf '%s\n' \
        'Defaults!@helper@ env_reset, !env_keep, !env_check, !setenv, secure_path="/usr/sbin:/usr/bin:/sbin:/bin"' \
        'Defaults!@helper@ !requiretty, !log_input, !log_output' \
        '@user@ ALL=@rule@' \
        >@sudoers@; \
    chmod 0440 @sudoers@; \
    visudo -cf @sudoers@; \
    rights="$(LC_ALL=C sudo -n -l -U @user@)"; \
    rights="${rights##*may run the following commands on }"; \
    [ "${rights#*:}" = "$(printf '\n    %s' '@rule@')" ] \
        || fail "the base image changes the sudo rights of @user@: $rights; change its sudoers, or --user"

# Create the helper's mount directories, and check that only root can change the programs that the helper runs.
RUN set -eu; \
    fail() { echo "ERROR: s3-snapshot: $1" >&2; exit 1; }; \
    for directory in @workspaces@ @skills@ @home@; do \
        mkdir -p "$directory"; \
        [ "$(realpath "$directory")" = "$directory" ] \
            || fail "$directory has a link in the base image; choose another"; \
        [ -z "$(ls -A "$directory")" ] || fail "$directory has files in the base image; choose another"; \
        chown root:root "$directory"; \
        chmod 0755 "$directory"; \
    done; \
    file="$(mktemp)"; \
    @guard@; \
    read -r python <@helper@; \
    python="${python#??}"; \
    "${python% *}" -IS "$file" @helper@ @sudoers@ /etc/sudoers @workspaces@ @skills@ @home@ \
        /sbin /bin /usr/sbin /usr/bin /usr/bin/mount-s3 /opt/aws/mountpoint-s3/bin/mount-s3 \
        /bin/sh /bin/cat /bin/umount /bin/fusermount /bin/fusermount3 /etc/passwd /etc/shadow /etc/group \
        /lib /lib64 /usr/lib /etc/ld.so.cache /etc/ld.so.preload /etc/pam.d/sudo; \
    rm "$file"

USER @user@
""".strip()
