"""The `Attachment` that synchronises an S3 workspace with the sandbox's disk, before and after each call.

A process in the sandbox, the *resident*, pulls changed files from S3 before a command. After the command, it pushes
changed files to S3. The resident keeps running between calls, with one set of credentials. If the sandbox lacks a
resident, this attachment sends the resident's program and credentials.

Calls of the guest module ``jobs`` are not synchronised. File operations that change nothing are not followed by a push.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from langchain_daytona_ws._core.answer import Answer
from langchain_daytona_ws._core.guest_rpc.attachments import SENDS_MAX, GuestRequest, Send
from langchain_daytona_ws._core.guest_rpc.payload import whole_source
from langchain_daytona_ws._core.s3.policy import PERMISSIONS_REMEDY
from langchain_daytona_ws._core.s3.store import SPARE_LIFE_S, Credentials, CredentialSource, expiry_text
from langchain_daytona_ws._core.s3.workspace import Mount, S3Workspace
from langchain_daytona_ws._core.sync.report import SyncReport, read_report, read_time
from langchain_daytona_ws.errors import SandboxError

logger = logging.getLogger("langchain_daytona_ws")

# Seconds for starting the resident, and for waiting for a pull and a push (`WAIT_S` each).
MARGIN_S = 60.0
JOBS = "jobs"  # entry module; its calls do not access the workspace
# File operations that follow another operation, which has just pulled. They pull only if they start a resident.
FOLLOW_UP_OPS = ("similar", "pack", "drop")
PULL_LIMIT_S = 3600.0
# Maximum time for which one request waits for a pull or a push. A longer pull or push continues in the resident, and
# the next request waits for it.
WAIT_S = 20.0
PROGRESS_EVERY_S = 3.0
PAUSE_S = 0.5  # between requests: a hostile sandbox may answer at once, without waiting

_CREDENTIAL_FAILURES = ("expired", "denied", "signature")


@dataclass(slots=True)
class SyncState:
    """The known state of a session's sandboxes. The sync and the async runtime share it.

    Attributes:
        started: Ids of the sandboxes in which a resident probably runs.
        refused: Ids of the sandboxes whose resident must be replaced, because S3 has refused its credentials.
        reports: Sandbox id → report of its last synchronisation. The first call that accesses the workspace adds the
            sandbox.
    """

    started: set[str] = field(default_factory=set)
    reports: dict[str, SyncReport] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    def take_unsaved(self) -> list[SyncReport]:
        """Forget all sandboxes, because they are gone. Return the reports that show files not pushed to S3."""
        reports = list(self.reports.values())
        self.reports.clear()
        self.started.clear()
        return [report for report in reports if not report.is_saved]


class SyncManager:
    """Add the id of the resident to requests that access the workspace; send the resident if the sandbox lacks it.

    Args:
        credentials: Returns credentials that are valid for at least the given seconds.
        forget: Removes from the cache the credentials that S3 has refused.
        now: Returns Unix time in seconds.
    """

    def __init__(
        self,
        workspace: S3Workspace,
        credentials: CredentialSource,
        forget: Callable[[Credentials], None],
        *,
        state: SyncState,
        now: Callable[[], float],
    ) -> None:
        self._workspace = workspace
        self._credentials = credentials
        self._forget = forget
        self._state = state
        self._now = now
        self.margin_s = MARGIN_S
        self.ends_at: str | None = None  # end of the resident's credentials, as text
        self.expires_at: float | None = None  # end of the resident's credentials, Unix time in seconds
        self._name = hashlib.sha256(workspace.workspace.directory.encode()).hexdigest()[:16]

    async def prepare(self) -> None:
        """Fetch credentials before a sandbox is created; raise `CredentialsRefused` if there are none."""
        await self._credentials(SPARE_LIFE_S)

    async def send(self, send: Send, request: GuestRequest) -> Answer:
        """Send a request with the id of the resident, and return its answer.

        If the sandbox reports that no resident runs, the request is sent again with the resident. If S3 refuses the
        resident's credentials, the request is sent once more with new credentials. During a long pull, the request is
        repeated, for about an hour at most. The command begins after the pull has ended.
        """
        if request.entry == JOBS:
            return await send(request)
        state, sandbox_id = self._state, request.sandbox_id
        since = request.port.now()
        asked = 0.0  # when the call asked for its pull, on the sandbox's clock; 0: not yet
        is_refreshed = False
        sends = 0
        while True:
            credentials = await self._credentials(request.life_s + SPARE_LIFE_S)
            is_new = sandbox_id not in state.started
            answer = await send(self._with_resident(request, credentials, is_new=is_new, asked=asked))
            code = str(answer.get("code")) if answer.get("error") == "setup" else ""
            if code == "sync_pulling":
                self._record_resident(sandbox_id, credentials, is_new=is_new)
                if request.port.now() > since + PULL_LIMIT_S + MARGIN_S:
                    return answer
                asked, progress = _pulling(answer.get("detail"))
                await self._report_pull(request, progress)
                continue
            if answer.get("error") in ("setup", "guest") and not code.startswith("sync_"):
                return answer  # the call failed for another reason
            if not code:
                report = None if answer.get("sync") is None else read_report(answer["sync"])
                self._record(sandbox_id, credentials, report, is_new=is_new)
                return answer
            state.started.discard(sandbox_id)
            if not _lacks_resident(code, is_new=is_new):
                if code.removeprefix("sync_") not in _CREDENTIAL_FAILURES or is_refreshed:
                    return answer
                # The credentials may have been revoked: try new ones.
                self._forget(credentials)
                state.refused.add(sandbox_id)
                is_refreshed = True
            sends += 1
            if sends == SENDS_MAX:
                return answer

    def _with_resident(
        self, request: GuestRequest, credentials: Credentials, *, is_new: bool, asked: float
    ) -> GuestRequest:
        sandbox_id, min_life_s = request.sandbox_id, request.life_s + SPARE_LIFE_S
        remaining_s = min_life_s if credentials.expires_at is None else credentials.expires_at - self._now()
        key = hashlib.sha256(credentials.access_key_id.encode()).hexdigest()[:16]
        pulls = is_new if request.fields.get("op") in FOLLOW_UP_OPS else request.fields.get("pulls", True)
        call: dict[str, object] = {
            "name": self._name,
            "id": self._id,
            "min_life_s": min(min_life_s, remaining_s),
            "is_new": is_new,
            "pulls": pulls,
            "wait_s": WAIT_S if request.on_progress is None else PROGRESS_EVERY_S,
            "key": key if sandbox_id in self._state.refused else "any",
        }
        if asked:
            call["asked"] = asked
        if not is_new:
            return request.extended({"sync": call})
        copies = self._copies(sandbox_id)
        resident = {"id": self._id, "key": key, "expires_at": credentials.expires_at, "copies": copies}
        # Keep the secret out of local variables: tracebacks may show them.
        return request.extended({"sync": call, "sync_resident": resident}, secret=_secret(credentials))

    @functools.cached_property
    def _id(self) -> str:
        # Computed with the first request: the modules are in memory by then, so that no event loop waits for a disk.
        identity = json.dumps([self._copies(""), whole_source("sync_resident")])
        return hashlib.sha256(identity.encode()).hexdigest()[:16]

    def _copies(self, sandbox_id: str) -> list[dict[str, object]]:
        # The label is part of the names of conflict copies: second versions of files that two writers have changed.
        label = re.sub("[^A-Za-z0-9]", "", sandbox_id)[:8]
        return [self._copy(mount, label) for mount in self._workspace.mounts]

    def _copy(self, mount: Mount, label: str) -> dict[str, object]:
        parent, name = posixpath.split(mount.directory)
        return {
            "root": mount.directory,
            "state": f"{parent}/.sync-{name}",
            "bucket": mount.bucket,
            "prefix": mount.prefix,
            "region": self._workspace.region,
            "endpoint": self._workspace.endpoint,
            "label": label,
            "ignored": [] if mount.read_only else list(self._workspace.sync_ignore),
            "limit_bytes": self._workspace.sync_limit_bytes,
            "read_only": mount.read_only,
        }

    def _record(
        self, sandbox_id: str, credentials: Credentials, report: SyncReport | None, *, is_new: bool
    ) -> None:
        """Record the report of a call. If a new resident may avoid its failure, the next call sends a resident."""
        state = self._state
        self._record_resident(sandbox_id, credentials, is_new=is_new)
        state.reports[sandbox_id] = report or state.reports.get(sandbox_id, SyncReport())
        if report is None:
            return
        if report.failure in _CREDENTIAL_FAILURES:
            self._forget(credentials)
            state.refused.add(sandbox_id)
        if report.failure in (*_CREDENTIAL_FAILURES, "absent", "unreadable"):
            state.started.discard(sandbox_id)

    def _record_resident(self, sandbox_id: str, credentials: Credentials, *, is_new: bool) -> None:
        self._state.started.add(sandbox_id)
        if is_new:
            self._state.refused.discard(sandbox_id)
            self.expires_at = credentials.expires_at
            self.ends_at = expiry_text(credentials)

    async def _report_pull(self, request: GuestRequest, progress: str) -> None:
        """Report the progress of a long pull, and wait before the next request."""
        counts = _pair(progress)
        text = "copying the workspace into the sandbox"
        if counts is not None and counts[1]:
            text += f": {counts[0]:,} of {counts[1]:,} files"
        logger.info("%s %s", text, request.sandbox_id)
        if request.on_progress is not None:
            await request.on_progress(f"[{text}]\n")
        await request.port.sleep(PAUSE_S)

    def error(self, code: str, detail: str) -> SandboxError | None:
        """Return the error for a failed pull (nothing ran); None if the code is not of this attachment."""
        if not code.startswith("sync_"):
            return None
        problem, remedy, for_model = _REFUSALS.get(code, _OTHER)
        where = self._workspace.workspace
        context: dict[str, object] = {
            "bucket": where.bucket,
            "prefix": where.prefix,
            "region": self._workspace.region,
        }
        if code == "sync_too_large":
            size, limit = _pair(detail) or (0, 0)
            context |= {"size_bytes": size, "limit_bytes": limit}
            detail = f"{size:,} bytes to download, the limit is {limit:,}"
        names = {**context, "endpoint": self._workspace.endpoint, "directory": where.directory}
        cause = f" ({' '.join(detail.split())})" if detail else ""
        return SandboxError(
            f"The S3 workspace could not be copied into the sandbox: {problem.format(**names)}{cause}. "
            f"{remedy.format(**names)}",
            code=code,
            op="sync",
            retryable=code in _PASSING,
            context=context,
            for_model=f"The workspace's files cannot be reached: {for_model} Nothing ran. Tell the user.",
        )


def _lacks_resident(code: str, *, is_new: bool) -> bool:
    """Return True if the next request must contain a resident, because the sandbox lacks a suitable one.

    A resident also ends when another session starts its own resident in the sandbox.
    """
    return code == "sync_absent" or (not is_new and (code == "sync_credentials" or code not in _REFUSALS))


def _pulling(detail: object) -> tuple[float, str]:
    """Return when the call asked for its pull (`read_time`), and the progress as JSON text, from a detail of
    ``sync_pulling``, which may be forged.
    """
    try:
        asked, progress = json.loads(str(detail))
    except (ValueError, TypeError, RecursionError):
        return 0.0, ""
    return read_time(asked), progress if isinstance(progress, str) else ""


def _pair(text: str) -> tuple[int, int] | None:
    """Return the two numbers in a text of the resident, which may be forged; None if the text is malformed."""
    try:
        first, second = json.loads(text)
        return int(first), int(second)
    except (ValueError, TypeError, RecursionError, OverflowError):
        return None


def _secret(credentials: Credentials) -> bytes:
    fields = {
        "key": credentials.access_key_id,
        "secret": credentials.secret_access_key,
        "token": credentials.session_token,
    }
    return json.dumps(fields).encode()


_MISCONFIGURED = "its configuration is wrong."
_UNAVAILABLE = "its storage does not answer."
_OTHER = ("it failed", "Check the message, then try again with a new sandbox.", _UNAVAILABLE)
_KEYS_REMEDY = (
    "Check that the role (options.mountRoleArn) or the keys in envVars are valid, and that the sandbox's clock is "
    "right."
)
_REFUSALS = {
    "sync_too_large": (
        "it is larger than the limit",
        "Set options.syncLimitBytes, use a sandbox with a larger disk, or mount the bucket instead (options.s3Mode: "
        '"mount").',
        "they are larger than this machine's limit.",
    ),
    "sync_unconditional": (
        "the store at {endpoint} overwrites objects although the condition of a request (If-None-Match) does not hold, "
        "so changes of two writers would be lost",
        'Use a store with conditional writes (AWS S3, MinIO), or a mount (options.s3Mode: "mount").',
        "the storage cannot protect files from being overwritten.",
    ),
    "sync_denied": (
        "S3 denied access to s3://{bucket}/{prefix}",
        PERMISSIONS_REMEDY,
        "access is denied.",
    ),
    "sync_expired": ("S3 treats the credentials as expired", _KEYS_REMEDY, "access is denied."),
    "sync_credentials": ("the credentials end too soon", _KEYS_REMEDY, "access is denied."),
    "sync_signature": (
        "S3 does not accept the signature of the requests",
        "The secret key does not belong to the access key, or a proxy changes requests. " + _KEYS_REMEDY,
        _MISCONFIGURED,
    ),
    "sync_no_bucket": (
        "the bucket {bucket} does not exist",
        "Check options.workspaceBucketName and options.skillsBucketName.",
        _MISCONFIGURED,
    ),
    "sync_wrong_region": (
        "a bucket is not in {region}",
        "Set options.awsRegion (or AWS_REGION) to the region that the message names.",
        _MISCONFIGURED,
    ),
    "sync_unreachable": (
        "S3 cannot be reached from the sandbox",
        "Check options.s3Endpoint and options.awsRegion, and that the sandbox's network allows S3.",
        _UNAVAILABLE,
    ),
    "sync_unavailable": ("S3 does not answer, or is overloaded", "Try again later.", _UNAVAILABLE),
    "sync_deadline": (
        "it took longer than an hour",
        "Try again: what was downloaded is kept. Check the sandbox's network.",
        _UNAVAILABLE,
    ),
    "sync_pulling": (
        "it is not done after an hour",
        "Try again: the files that were downloaded are kept. Check the sandbox's network.",
        _UNAVAILABLE,
    ),
    "sync_disk_full": (
        "the sandbox's disk is full",
        "Use a snapshot or image whose sandboxes have a larger disk, or exclude files with options.syncIgnore.",
        "this machine's disk is full.",
    ),
    "sync_mount_point": (
        "{directory} is a mount point",
        "Choose another options.workspaceRoot, or remove that mount from the sandbox: the workspace must be a plain "
        "directory.",
        _MISCONFIGURED,
    ),
    "sync_busy": (
        "another process in the sandbox holds the workspace's lock",
        "Use a new sandbox: close or release the session.",
        "this machine is busy.",
    ),
    "sync_absent": (
        "the process that synchronises it does not start or ends at once",
        "Check that the sandbox has free memory and disk, and Python with ssl, then use a new sandbox.",
        _UNAVAILABLE,
    ),
}
_PASSING = {
    "sync_pulling",
    "sync_unreachable",
    "sync_unavailable",
    "sync_deadline",
    "sync_absent",
    "sync_busy",
}
