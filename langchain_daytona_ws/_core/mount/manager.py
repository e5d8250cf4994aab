"""Send the mount specification with each request, and credentials if the sandbox lacks them. Errors of mounting."""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import re
from collections.abc import Awaitable, Callable

from langchain_daytona_ws._core.answer import Answer
from langchain_daytona_ws._core.guest_rpc.attachments import SENDS_MAX, GuestRequest, Send
from langchain_daytona_ws._core.guest_rpc.payload import joined_source, separate_program
from langchain_daytona_ws._core.mount.rename_probe import (
    LOSES_FILES,
    LOSES_FILES_REMEDY,
    UNKNOWN_REMEDY,
    Probed,
    Renames,
)
from langchain_daytona_ws._core.s3.policy import PERMISSIONS_REMEDY
from langchain_daytona_ws._core.s3.store import SPARE_LIFE_S, Credentials, CredentialSource, expiry_text
from langchain_daytona_ws._core.s3.workspace import S3Workspace
from langchain_daytona_ws._guest.mount_request import VERSION
from langchain_daytona_ws.errors import SandboxError

# Starting mount-s3 takes about a second; mount-s3 gives up after 30 seconds.
MOUNT_S = 45.0

# If credentials with a shorter life expire, this life is reported as the cause. AWS issues a life of at least 900 s.
SHORT_LIFE_S = 300.0

# If a mount would hide files, the mounter (the program that mounts in the sandbox) first moves them to such a
# directory. The mount helper, which is the mounter of a snapshot, refuses to mount instead.
_FOUND = re.compile(r"/tmp/found-under-workspace-[a-z0-9_]{1,20}")  # noqa: S108 - in the sandbox

_MOUNTER_MODULES = ("mount_request", "locks", "mount_credentials", "mount_check", "mounter")


class MountManager:
    """The `Attachment` to calls that keeps an S3 workspace mounted in the sandbox.

    Args:
        workspace: The prefixes and their mount directories.
        credentials: Returns credentials that are valid for at least the given seconds.
        forget: Removes from the cache the credentials that S3 has refused.
        delivered: Sandbox id → hash of the credentials in this sandbox; shared by the sync and the async runtime.
        add_notice: Adds a notice to the next result.
        caution: Text added to errors if a network setting may block S3 in the sandbox; ``""`` otherwise.
        probe: Tests how the store answers renames; None for a store that is known to be safe.
    """

    def __init__(
        self,
        workspace: S3Workspace,
        credentials: CredentialSource,
        forget: Callable[[Credentials], None],
        *,
        delivered: dict[str, str],
        add_notice: Callable[[str], None],
        caution: str = "",
        probe: Callable[[], Awaitable[Probed]] | None = None,
    ) -> None:
        self._workspace = workspace
        self._credentials = credentials
        self._forget = forget
        self._delivered = delivered
        self._add_notice = add_notice
        self._caution = caution
        self._probe = probe
        self.margin_s = MOUNT_S
        self.ends_at: str | None = None  # when the sandbox's credentials expire, as text
        self.expires_at: float | None = None  # the same time in Unix seconds
        self._life_s: float | None = None  # whole life of the last used credentials, in seconds
        directory = workspace.workspace.directory
        # `_id` identifies the directory, `_spec` all settings of its mounts.
        self._id = hashlib.sha256(directory.encode()).hexdigest()[:16]
        self._directories = [mount.directory for mount in workspace.mounts]
        self._fixed: dict[str, object] = {
            "version": VERSION,
            "id": self._id,
            "mounts": [
                {
                    "bucket": mount.bucket, "prefix": mount.prefix, "directory": mount.directory,
                    "read_only": mount.read_only,
                }
                for mount in workspace.mounts
            ],
            "region": workspace.region,
            "endpoint": workspace.endpoint,
        }  # fmt: skip
        self._spec = hashlib.sha256(json.dumps(self._fixed).encode()).hexdigest()[:16]

    async def prepare(self) -> None:
        """Before a sandbox is created: fetch credentials, and check the store.

        Raises:
            CredentialsRefused: No credentials are available.
            SandboxError: See `_check_store`.
        """
        await self._credentials(SPARE_LIFE_S)
        await self._check_store()

    async def _check_store(self) -> None:
        """Refuse to mount a store on which a rename would lose files.

        Raises:
            SandboxError: The store reports success for renames that it does not make, its answer is not conclusive, or
                the bucket does not exist.
            CredentialsRefused: No credentials are available.
        """
        if self._probe is None:
            return
        probed = await self._probe()
        code = _UNSAFE.get(probed.renames)
        if code is not None:
            left = f"the empty object {probed.left} was left below the prefix" if probed.left else ""
            raise self.refusal(code, ". ".join(part for part in (probed.detail, left) if part))

    async def send(self, send: Send, request: GuestRequest) -> Answer:
        """Send a request with the mount specification, and return its answer.

        If the credentials were delivered earlier, the request omits them. If the sandbox reports that it lacks them,
        the request is sent again with the credentials. If S3 refuses credentials that were delivered earlier, or that
        expired on the way, the request is sent once more with new credentials.
        """
        is_refreshed = False
        answer: Answer = {}
        for _ in range(SENDS_MAX):
            credentials = await self._credentials(request.life_s + SPARE_LIFE_S)
            is_delivered = self._delivered.get(request.sandbox_id) == _serial(credentials)
            if not is_delivered:
                await self._check_store()
            answer = await send(self._with_mount(request, credentials, is_delivered=is_delivered))
            code = str(answer.get("code")) if answer.get("error") == "setup" else ""
            if not code.startswith("mount_"):
                self._record(request.sandbox_id, credentials, answer)
                return answer
            self._delivered.pop(request.sandbox_id, None)
            if is_delivered and code in ("mount_credentials", "mount_program"):
                continue  # the sandbox has lost the credentials or the program: send them again
            # Credentials delivered earlier may have been revoked. Credentials of this request may have expired on the
            # way.
            is_old = code in (_OF_OLD_CREDENTIALS if is_delivered else ("mount_credentials", "mount_expired"))
            if not is_old or is_refreshed:
                return answer
            self._forget(credentials)
            is_refreshed = True
        return answer

    def _with_mount(
        self, request: GuestRequest, credentials: Credentials, *, is_delivered: bool
    ) -> GuestRequest:
        self._life_s = credentials.life_s
        serial = _serial(credentials)
        mounts = {**self._fixed, "spec": self._spec, "serial": serial, "expires_at": credentials.expires_at}
        mount = {
            "id": self._id,
            "spec": self._spec,
            "serial": serial,
            "min_life_s": request.life_s + SPARE_LIFE_S,
            "directories": self._directories,
            "has_secret": not is_delivered,
            "request": json.dumps(mounts),
            # The mounter always runs with new credentials, so send its source with them. Otherwise it rarely runs.
            "program": separate_program(_mounter(), with_source=not is_delivered),
        }
        # Keep the secret out of local variables: tracebacks may show them.
        return request.extended(
            {"mount": mount}, secret=None if is_delivered else _process_output(credentials)
        )

    def _record(self, sandbox_id: str, credentials: Credentials, answer: Answer) -> None:
        """Record which credentials the sandbox has. Add a notice if files were moved out of the mount's directory."""
        self._delivered[sandbox_id] = _serial(credentials)
        self.ends_at = expiry_text(credentials)
        self.expires_at = credentials.expires_at
        moved = answer.get("moved")
        for directory in moved if isinstance(moved, list) else ():
            if isinstance(directory, str) and _FOUND.fullmatch(directory):
                self._add_notice(
                    "files were in the workspace's directory while it was not mounted: they were moved to "
                    f"{directory}, on the machine's own disk"
                )

    def error(self, code: str, detail: str) -> SandboxError | None:
        """Return the error for a failed mount; None if the code belongs to another attachment."""
        return self.refusal(code, detail) if code.startswith("mount_") else None

    def refusal(self, code: str, detail: str) -> SandboxError:
        """Return the error for a mount that failed or was refused."""
        problem, remedy, for_model = _REFUSALS.get(code, _OTHER)
        if code == "mount_expired" and self._life_s is not None and self._life_s < SHORT_LIFE_S:
            problem, remedy = _SHORT_LIVED
        where = self._workspace.workspace
        names = {
            "bucket": where.bucket, "prefix": where.prefix, "region": self._workspace.region,
            "directory": where.directory, "endpoint": self._workspace.endpoint, "life_s": f"{self._life_s or 0:.0f}",
        }  # fmt: skip
        cause = f" ({' '.join(detail.split())})" if detail else ""
        likely = f" Likely cause: {self._caution}" if self._caution and code in _OF_THE_NETWORK else ""
        return SandboxError(
            f"The S3 workspace could not be mounted: {problem.format(**names)}{cause}.{likely} "
            f"{remedy.format(**names)}",
            code=code,
            op="mount",
            retryable=code in _PASSING,
            context={"bucket": where.bucket, "prefix": where.prefix, "region": self._workspace.region},
            for_model=f"The workspace's files cannot be reached: {for_model} Nothing ran. Tell the user.",
        )


@functools.cache
def mounter_source(workspaces: str = "", skills: str = "") -> str:
    """Return the source of the mounter (``_guest/mounter.py``), which runs as root.

    Args:
        workspaces: The only directory below which it may mount workspaces; ``""`` for any directory.
        skills: The only directory where it may mount skills; ``""`` for any directory.
    """
    text = joined_source(*_MOUNTER_MODULES)
    for name, value in (("WORKSPACES", workspaces), ("SKILLS", skills)):
        head, line, tail = text.partition(f'\n{name} = ""\n')
        text = f"{head}{line and f'{chr(10)}{name} = {json.dumps(value)}{chr(10)}'}{tail}"
    return text


@functools.cache
def _mounter() -> bytes:
    return joined_source(*_MOUNTER_MODULES, bare=True).encode()


def _serial(credentials: Credentials) -> str:
    """Return a hash that identifies the credentials and does not reveal them."""
    fields = [credentials.access_key_id, credentials.secret_access_key, credentials.session_token]
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:16]


def _process_output(credentials: Credentials) -> bytes:
    """Return credentials in the output format of a ``credential_process`` (AWS SDKs and Tools Reference Guide)."""
    fields: dict[str, object] = {
        "Version": 1,
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key,
    }
    if credentials.session_token is not None:
        fields["SessionToken"] = credentials.session_token
    if credentials.expires_at is not None:
        end = datetime.datetime.fromtimestamp(credentials.expires_at, datetime.UTC)
        fields["Expiration"] = end.strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps(fields).encode()


_MISCONFIGURED = "its configuration is wrong."
_UNAVAILABLE = "its storage does not answer."
_OR_SYNC = "or set options.s3Mode to sync, which needs no mount."
_OTHER = ("mount-s3 failed", "Check the message and the sandbox's snapshot.", _UNAVAILABLE)
_REFUSALS = {
    "mount_no_mount_s3": (
        "the sandbox has no mount-s3",
        "Build a snapshot with mount-s3 with `langchain-daytona-ws s3-snapshot`, and name it in options.snapshot; "
        f"{_OR_SYNC}",
        "this machine cannot mount them.",
    ),
    "mount_no_fuse": (
        "the sandbox has no usable /dev/fuse",
        "Use a Daytona target whose sandboxes have FUSE, and a snapshot built with `langchain-daytona-ws "
        f"s3-snapshot`; a self-hosted runner must start containers with the device; {_OR_SYNC}",
        "this machine cannot mount them.",
    ),
    "mount_not_root": (
        "the sandbox's user is not root, has no sudo without a password and no mount helper",
        "Use a snapshot built with `langchain-daytona-ws s3-snapshot`, which has the helper, or a snapshot with "
        f"the user root; {_OR_SYNC}",
        "this machine cannot mount them.",
    ),
    "mount_helper_version": (
        "the mount helper in the snapshot is of another version of this package",
        "Build the snapshot again with `langchain-daytona-ws s3-snapshot --replace`.",
        _MISCONFIGURED,
    ),
    "mount_other_place": (
        "the mount helper in the snapshot mounts other directories",
        "Set options.workspaceRoot and options.skillsMountPath to the values that the snapshot was built with, or "
        "build it again.",
        _MISCONFIGURED,
    ),
    "mount_denied": (
        "S3 denied access to s3://{bucket}/{prefix}",
        PERMISSIONS_REMEDY,
        "access is denied.",
    ),
    "mount_signature": (
        "S3 does not accept the signature of the requests",
        "The secret key does not belong to the access key, or a proxy changes requests. Check AWS_SECRET_ACCESS_KEY in "
        "envVars, any proxy, and options.s3Endpoint.",
        _MISCONFIGURED,
    ),
    "mount_wrong_region": (
        "a bucket is not in {region}",
        "Set options.awsRegion (or AWS_REGION) to the region that the message names; the skills bucket must be in the "
        "same one.",
        _MISCONFIGURED,
    ),
    "mount_no_bucket": (
        "the bucket does not exist",
        "Check options.workspaceBucketName (or FILESYSTEM_BUCKET_NAME, here {bucket}) and "
        "options.skillsBucketName (or SKILLS_BUCKET_NAME).",
        _MISCONFIGURED,
    ),
    "mount_unreachable": (
        "S3 cannot be reached from the sandbox",
        "Check options.s3Endpoint and options.awsRegion, and that the sandbox's network allows S3.",
        _UNAVAILABLE,
    ),
    "mount_program": (
        "the sandbox did not keep the program that mounts",
        "Check whether its disk is full, then try again.",
        _UNAVAILABLE,
    ),
    "mount_busy": (
        "another process in the sandbox holds the lock of the mount's credentials",
        "Try again; if it lasts, use a new sandbox.",
        _UNAVAILABLE,
    ),
    "mount_refused": (
        "mount-s3 refused to start",
        "Check the message; build the snapshot again with `langchain-daytona-ws s3-snapshot` if its mount-s3 is older.",
        _UNAVAILABLE,
    ),
    "mount_no_signing": (
        "mount-s3 found no credentials",
        "Check the sandbox's clock and whether its disk is full, then try again.",
        _UNAVAILABLE,
    ),
    "mount_credentials": (
        "the sandbox did not keep its credentials",
        "Check the sandbox's clock and whether its disk is full, then try again.",
        _UNAVAILABLE,
    ),
    "mount_expired": (
        "S3 treats the workspace's credentials as expired, also new credentials",
        "Check this machine's clock and the sandbox's; with keys in envVars, whether their session token has ended.",
        "access is denied.",
    ),
    "mount_eio": (
        "S3 refuses requests of the mount, also with new credentials",
        "Check that the role (options.mountRoleArn) or the keys in envVars have not been revoked, then try again.",
        "access is denied.",
    ),
    "mount_not_a_directory": (
        "{directory} is a file in the sandbox",
        "Choose another options.workspaceRoot or options.skillsMountPath, or remove it from the image.",
        _MISCONFIGURED,
    ),
    "mount_not_empty": (
        "there are files in {directory} of the sandbox, which the mount would hide",
        "Move them elsewhere, or choose another options.workspaceRoot or options.skillsMountPath.",
        _MISCONFIGURED,
    ),
    "mount_cannot_unmount": (
        "a dead mount at {directory} could not be removed",
        "Use a new sandbox: close or release the session.",
        _UNAVAILABLE,
    ),
    "mount_bad_request": (
        "the mount helper in the snapshot refuses one of the settings",
        "Correct the setting that the message names, or build the snapshot again with `langchain-daytona-ws "
        "s3-snapshot --replace`.",
        _MISCONFIGURED,
    ),
    "mount_foreign_mount": (
        "another file system is mounted at the workspace's directory",
        "Choose another options.workspaceRoot or options.skillsMountPath, or remove that mount from the sandbox.",
        _MISCONFIGURED,
    ),
    "mount_renames_lose_files": (
        LOSES_FILES,
        LOSES_FILES_REMEDY,
        "renamed files would lose their content, so no command can run.",
    ),
    "mount_renames_unknown": (
        "a test from this machine could not find out whether the store at {endpoint} refuses "
        "RenameObject; a store that accepts it loses the content of renamed files",
        UNKNOWN_REMEDY,
        _UNAVAILABLE,
    ),
    "mount_not_ready": (
        "mount-s3 started and does not answer",
        "Try again; then check the S3 service's status and the sandbox's network.",
        _UNAVAILABLE,
    ),
}  # fmt: skip
_SHORT_LIVED = (
    "S3 treats the workspace's credentials as expired: they are issued for {life_s} s only",
    "Let the role's STS (options.stsEndpoint) issue credentials for 15 minutes or more, as AWS does. If this STS "
    "already does so, this machine's clock is wrong.",
)
# The delivered credentials may have been revoked, or their role changed: try new credentials.
_OF_OLD_CREDENTIALS = {"mount_eio", "mount_expired", "mount_denied"}
_OF_THE_NETWORK = {"mount_unreachable", "mount_not_ready", "mount_refused"}
_PASSING = {
    "mount_unreachable", "mount_not_ready", "mount_busy", "mount_credentials", "mount_renames_unknown",
}  # fmt: skip
_UNSAFE = {
    Renames.ACCEPTED: "mount_renames_lose_files",
    Renames.NO_BUCKET: "mount_no_bucket",
    Renames.UNKNOWN: "mount_renames_unknown",
}
