"""The snapshot with mount-s3: its Dockerfile, and the errors of building it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from langchain_daytona_ws._core.mount.snapshot_helper import account, helper
from langchain_daytona_ws._core.ports import FaultKind, PortFault
from langchain_daytona_ws._core.sandbox.remedies import BY_KIND, MESSAGES
from langchain_daytona_ws.config import SandboxOptions
from langchain_daytona_ws.errors import ConfigError, ProvisionError

# The release that this package was developed with. The local server imitates it.
MOUNT_S3_VERSION = "1.24.0"
RELEASES = "https://s3.amazonaws.com/mountpoint-s3-release"
# The primary keys that sign Mountpoint's packages, the newer key first (Amazon S3 User Guide, "Verifying the signature
# of the Mountpoint for Amazon S3 package").
RELEASE_KEYS = ("8AEFE705EBE329C0948C75A66F1C3B3AEF4B030B", "673FE4061506BB469A0EF857BE397A52B086DA5A")

# Names of images and snapshots that Daytona accepts. An image name must not contain white space, because it is written
# to the Dockerfile.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/@-]{0,254}", re.ASCII)
_VERSION = re.compile(r"\d{1,4}\.\d{1,4}\.\d{1,4}", re.ASCII)
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)
# Directories that need no quotes in a shell and no escapes in the kernel's table of mounts.
_DIRECTORY = re.compile(r"(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)+", re.ASCII)

ROOT = "root"
USER = "daytona"
WORKSPACE_ROOT: str = SandboxOptions.model_fields["workspace_root"].default
SKILLS_MOUNT_PATH: str = SandboxOptions.model_fields["skills_mount_path"].default


@dataclass(frozen=True, slots=True)
class Recipe:
    """The contents of the snapshot.

    Args:
        base_image: A Debian or Ubuntu image with bash, Node and Python 3.8 or newer.
        mount_s3_version: A release of Mountpoint for Amazon S3.
        user: The account that runs commands in the sandbox. If the base image lacks the account, it is created. The
            account can mount workspaces and skills with root's rights, and has no other rights of root. If ``user`` is
            ``root``, commands can read the credentials.
        workspace_root: The directory below which the account may mount workspaces. Only checked for ``root``.
        skills_mount_path: The directory where the account may mount skills. Only checked for ``root``.

    Raises:
        ConfigError: A value is invalid, or the two directories overlap.
    """

    base_image: str
    mount_s3_version: str = MOUNT_S3_VERSION
    user: str = USER
    workspace_root: str = WORKSPACE_ROOT
    skills_mount_path: str = SKILLS_MOUNT_PATH

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.base_image):
            raise _setting_error(
                f"the base image {self.base_image!r} is not an image name; use a name such as node:22"
            )
        if not _VERSION.fullmatch(self.mount_s3_version):
            raise _setting_error(
                f"the mount-s3 version {self.mount_s3_version!r} is not pinned; set one release, such as "
                f"{MOUNT_S3_VERSION}"
            )
        if not _USER.fullmatch(self.user):
            raise _setting_error(
                f"the user {self.user!r} is not an account name; use a name such as {USER}, or {ROOT}"
            )
        _check_directory("workspace root", self.workspace_root, WORKSPACE_ROOT)
        _check_directory("skills mount path", self.skills_mount_path, SKILLS_MOUNT_PATH)
        root, skills = PurePosixPath(self.workspace_root), PurePosixPath(self.skills_mount_path)
        if root.is_relative_to(skills) or skills.is_relative_to(root):
            raise _setting_error(
                f"the workspace root {root} and the skills mount path {skills} overlap; set two directories of which "
                "neither is inside the other"
            )

    def dockerfile(self) -> str:
        """Return the Dockerfile, in syntax version 1. It needs no build context."""
        parts = [
            f"FROM {self.base_image}\nUSER root",
            _CHECKS,
            _PACKAGES.replace("@sudo@", "" if self.user == ROOT else " sudo"),
            self._mount_s3(),
            *self._user(),
        ]
        return "\n\n".join(parts) + "\n"

    def _mount_s3(self) -> str:
        return _MOUNT_S3.replace("@version@", self.mount_s3_version).replace("@keys@", "|".join(RELEASE_KEYS))

    def _user(self) -> list[str]:
        if self.user == ROOT:
            return ["# No other USER: commands run as root, who can mount and read the credentials."]
        return [account(self.user), helper(self.user, self.workspace_root, self.skills_mount_path)]


def checked_name(name: str) -> str:
    """Return a snapshot's name unchanged; raise ConfigError if Daytona does not accept it."""
    if not _NAME.fullmatch(name):
        raise _setting_error(
            f"the snapshot name {name!r} is not possible; use letters, digits and _ . : / @ -, such as fuse-s3"
        )
    return name


def build_error(fault: PortFault, name: str) -> ProvisionError:
    """Return the error for a snapshot that could not be found, deleted or built."""
    remedies = {code: remedy for pattern, code, remedy in MESSAGES if re.search(pattern, fault.message)}
    code = next((code for code in remedies if code in _SHARED), "snapshot_failed")
    text = f"The snapshot {name} could not be built: {fault.message}."
    if code == "no_runner":
        text = f"Daytona has no available runner for snapshot '{name}' ({fault.message})."
        remedy = f"{remedies[code]} Here: leave out --region."
    elif code == "region_not_found":
        remedy = "Leave out --region for a general snapshot, or name an existing region."
    elif code in remedies:
        remedy = remedies[code]
    elif fault.kind in _SNAPSHOT_REMEDIES:
        code, remedy = _SNAPSHOT_REMEDIES[fault.kind]
    else:
        # A failed build has no HTTP status.
        otherwise = _READ_THE_LOG if fault.status is None else _READ_THE_MESSAGE
        code, remedy = BY_KIND.get(fault.kind, (code, otherwise))
    return ProvisionError(
        f"{text} {remedy}",
        code=code,
        op="snapshot",
        retryable=fault.passing or code == "no_runner",
        context={"snapshot": name, "status": fault.status},
    )


_SHARED = ("no_runner", "region_not_found", "quota", "organization_suspended", "api_key_expired")
_READ_THE_LOG = "The build log above shows the failing step. Correct it, then build again with --replace."
_READ_THE_MESSAGE = "Check the message, and that options.apiUrl is Daytona's API."
_SNAPSHOT_REMEDIES = {
    FaultKind.FORBIDDEN: ("forbidden", "The API key needs the write:snapshots and, for --replace, delete:snapshots "
                          "permissions; a snapshot by Daytona cannot be replaced: use another --name."),
    FaultKind.NAME_TAKEN: ("name_taken", "Build with --replace, or use another --name."),
    FaultKind.BUSY: ("busy", "Daytona is still building or deleting it: check the dashboard, try again later "
                     "with --replace, or use another --name."),
}  # fmt: skip


def _check_directory(setting: str, directory: str, usual: str) -> None:
    if not _DIRECTORY.fullmatch(directory) or len(directory) > 1024:
        raise _setting_error(
            f"the {setting} {directory!r} is not possible; use an absolute directory whose names are letters, digits, "
            f"'.', '_' and '-', not starting with '.' or '-', such as {usual}"
        )


def _setting_error(problem: str) -> ConfigError:
    return ConfigError(problem, code="snapshot_setting", op="snapshot")


_CHECKS = r"""
# Check the base image first, so that nothing is downloaded for an unsuitable image.
RUN set -eux; \
    fail() { echo "ERROR: s3-snapshot: $1" >&2; exit 1; }; \
    command -v apt-get >/dev/null || fail "the base image has no apt-get; use an image based on Debian or Ubuntu"; \
    command -v bash >/dev/null || fail "the base image has no bash; use an image with bash"; \
    command -v node >/dev/null || fail "the base image has no Node; use an image with Node, such as node:22"; \
    command -v python3 >/dev/null || fail "the base image has no python3; use an image with python3, such as node:22"; \
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 8))' \
        || fail "the python3 of the base image is older than 3.8; use a newer image"; \
    case "$(dpkg --print-architecture)" in \
        amd64|arm64) ;; \
        *) fail "mount-s3 is published for amd64 and arm64 only" ;; \
    esac
""".strip()

_PACKAGES = r"""
# libfuse2 is called libfuse2t64 since Ubuntu 24.04 and Debian 13. fuse3 replaces fuse and also has fusermount.
RUN set -eux; \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get update; \
    if apt-cache show libfuse2t64 >/dev/null 2>&1; then libfuse=libfuse2t64; else libfuse=libfuse2; fi; \
    if command -v fusermount3 >/dev/null; then fuse=fuse3; else fuse=fuse; fi; \
    apt-get install -y --no-install-recommends ca-certificates curl "$fuse" gpg "$libfuse" ripgrep@sudo@; \
    rm -rf /var/lib/apt/lists/*
""".strip()

_MOUNT_S3 = rf"""
# The downloaded file KEYS is not trusted: the package must be signed with a release key of Mountpoint. gpg's line
# VALIDSIG ends with the fingerprint of the signer's primary key. A key that expired after signing is accepted; a
# revoked key is refused. --no-autostart: public keys need no agent, and the package gpg contains no agent.
RUN set -eux; \
    fail() {{ echo "ERROR: s3-snapshot: $1" >&2; exit 1; }}; \
    export DEBIAN_FRONTEND=noninteractive; \
    case "$(dpkg --print-architecture)" in amd64) arch=x86_64 ;; *) arch=arm64 ;; esac; \
    deb="mount-s3-@version@-$arch.deb"; \
    from="{RELEASES}/@version@/$arch"; \
    GNUPGHOME="$(mktemp -d)"; export GNUPGHOME; cd "$GNUPGHOME"; \
    for url in "$from/$deb" "$from/$deb.asc" "{RELEASES}/public_keys/KEYS"; do \
        curl --proto '=https' --tlsv1.2 -fsSL --retry 3 -O "$url" \
            || fail "can't download $url; is there a release @version@, and may the build reach S3?"; \
    done; \
    gpg --batch --no-autostart --import KEYS \
        || echo "a key was not imported: the signature tells whether it matters"; \
    gpg --batch --status-fd 1 --verify "$deb.asc" "$deb" >status \
        || fail "the signature of $deb is not good, or its key is unknown"; \
    if grep -Eq '^\[GNUPG:\] (BADSIG|EXPSIG|REVKEYSIG) ' status; then fail "the signature of $deb is not good"; fi; \
    grep -Eq '^\[GNUPG:\] VALIDSIG .* (@keys@)$' status || fail "$deb is not signed with a release key of Mountpoint"; \
    apt-get update; \
    apt-get install -y --no-install-recommends "./$deb"; \
    case "$(mount-s3 --version)" in "mount-s3 @version@"*) ;; *) fail "mount-s3 is not @version@" ;; esac; \
    rg --version; \
    cd /; rm -rf "$GNUPGHOME" /var/lib/apt/lists/*
""".strip()
