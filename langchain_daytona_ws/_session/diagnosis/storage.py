"""Check the S3 workspace from this machine: clock, credentials, access to the prefix and no access beyond it."""

from __future__ import annotations

import datetime
import secrets
import time
from collections.abc import Iterator

from langchain_daytona_ws._adapters.aws import AssumedRole
from langchain_daytona_ws._adapters.s3 import SyncS3Store
from langchain_daytona_ws._adapters.s3_bucket import Bucket
from langchain_daytona_ws._adapters.s3_probe import S3Probe
from langchain_daytona_ws._core.doctor import s3 as s3_findings
from langchain_daytona_ws._core.doctor.clock import judge_clock, off_by_s
from langchain_daytona_ws._core.doctor.finding import (
    Finding,
    Status,
    failed,
    from_error,
    ok,
    skipped,
    warning,
)
from langchain_daytona_ws._core.mount.rename_probe import Renames, needs_probe, probe_renames
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3.errors import store_error
from langchain_daytona_ws._core.s3.policy import session_policy
from langchain_daytona_ws._core.s3.store import Credentials, StoreFault, StoreFaultKind
from langchain_daytona_ws._core.s3.workspace import S3Workspace
from langchain_daytona_ws._session.diagnosis.captured_warnings import captured_warnings
from langchain_daytona_ws.errors import CredentialsRefused

CHECKS = (
    "s3-clock", "s3-credentials", "s3-list", "s3-write", "s3-new-file", "s3-renames", "s3-boundary", "s3-skills",
)  # fmt: skip
PROBE = ".langchain-daytona-ws-doctor-"


class StorageDiagnosis:
    """Check one S3 workspace with the credentials that its session would have.

    Args:
        other_prefix: The prefix of another workspace, which the credentials must not reach.
    """

    def __init__(self, workspace: S3Workspace, other_prefix: str) -> None:
        self._workspace = workspace
        self._other_prefix = other_prefix
        mount = workspace.workspace
        self._where = f"s3://{mount.bucket}/{mount.prefix}"
        self._bucket = Bucket(workspace)
        self._probe = S3Probe(workspace)
        self._store = SyncS3Store(self._bucket, self._current, lambda expired: None)
        self.credentials: Credentials | None = None
        self._is_unsafe = False

    @property
    def obstacle(self) -> str:
        """The reason to create the sandbox without the S3 workspace; ``""`` if there is no such reason."""
        if self.credentials is None:
            return "there are no credentials to mount it with"
        return "a mount of this store would lose files that are renamed" if self._is_unsafe else ""

    @property
    def is_mounted(self) -> bool:
        """True if commands access the workspace through a mount, False if it is synchronised."""
        return self._workspace.mode == "mount"

    def close(self) -> None:
        self._bucket.close()
        self._probe.close()

    def findings(self) -> Iterator[Finding]:
        """Run the checks; skip checks that depend on a failed check."""
        yield self._clock()
        yield self._check_credentials()
        if self.credentials is None:
            yield from skipped("there are no credentials", *CHECKS[2:])
            return
        listing = self._list()
        yield listing
        if listing.status is Status.FAILED:
            yield from skipped("the prefix cannot be listed", *CHECKS[3:])
            return
        yield from self._write()
        if self.is_mounted:
            yield self._new_file()
            yield self._renames()
        else:
            yield from skipped(
                "the workspace is not mounted (options.s3Mode is sync)", "s3-new-file", "s3-renames"
            )
        yield self._boundary(self.credentials)
        yield self._skills(self.credentials)

    def read(self, key: str) -> bytes | None:
        """Read a small object below the prefix."""
        return run_sync(self._store.get(key, max_bytes=1024)).data

    def remove(self, key: str) -> Finding | None:
        """Delete an object below the prefix; return a finding if the object may still exist."""
        try:
            run_sync(self._store.delete(key))
        except StoreFault as fault:
            if self._is_gone(key):
                return None
            return failed(
                "s3-cleanup",
                f"{self._where}{key} could not be deleted: {fault.message}",
                "Delete it by hand: it is not needed. The credentials need s3:DeleteObject below the prefix.",
                "not_deleted",
            )
        return None

    def _is_gone(self, key: str) -> bool:
        try:
            return not run_sync(self._store.list_page(key, max_keys=1)).objects
        except StoreFault:
            return False  # unknown

    async def _current(self) -> Credentials:
        assert self.credentials is not None  # noqa: S101 - called only after the check for credentials
        return self.credentials

    def _clock(self) -> Finding:
        try:
            before_s, server_s, after_s = self._probe.server_time()
        except StoreFault as fault:
            return self._refused("s3-clock", fault)
        off_s = off_by_s(server_s, before_s, after_s)
        return judge_clock("s3-clock", "S3's", off_s, "Set this machine's clock right, best with NTP.")

    def _check_credentials(self) -> Finding:
        role = self._workspace.role
        if role is None:
            self.credentials = self._workspace.keys
            return s3_findings.given_keys(has_token=bool(self.credentials and self.credentials.session_token))
        with captured_warnings() as warnings:
            try:
                self.credentials = AssumedRole(self._workspace).assume()
            except CredentialsRefused as error:
                return from_error("s3-credentials", error)
        ends = self.credentials.expires_at or 0.0
        at = datetime.datetime.fromtimestamp(ends, datetime.UTC)
        found = (
            f"{role.arn} was assumed; its credentials live for {max(ends - time.time(), 0) / 60:.0f} min (until "
            f"{at:%H:%M} UTC), and are renewed while the session is used. The session policy has "
            f"{len(session_policy(self._workspace)):,} characters"
        )
        return (
            warning("s3-credentials", found, " ".join(warnings)) if warnings else ok("s3-credentials", found)
        )

    def _list(self) -> Finding:
        try:
            page = run_sync(self._store.list_page("", max_keys=1))
        except StoreFault as fault:
            return self._refused("s3-list", fault)
        content = "it has files" if page.objects or page.more else "it is empty"
        return ok("s3-list", f"{self._where} in {self._workspace.region} can be listed; {content}")

    def _write(self) -> Iterator[Finding]:
        key = PROBE + secrets.token_hex(6)
        try:
            finding = self._written(key)
        except StoreFault as fault:
            finding = self._refused("s3-write", fault)
        finally:
            left = self.remove(key)
        yield finding
        if left is not None:
            yield left

    def _written(self, key: str) -> Finding:
        """Write, read and overwrite an object, and check that the store applies conditions."""
        first, second = secrets.token_bytes(16), secrets.token_bytes(16)
        made = run_sync(self._store.put(key, first, if_match=None, metadata={}))
        if self.read(key) != first:
            return s3_findings.content_differs()
        if not self._is_refused(key, second, None):
            return s3_findings.condition_ignored("If-None-Match")
        run_sync(self._store.put(key, second, if_match=made.etag, metadata={}))
        if not self._is_refused(key, first, made.etag):
            return s3_findings.condition_ignored("If-Match")
        if self.read(key) != second:
            return s3_findings.content_differs()
        return ok("s3-write", "an object was written, read, overwritten under its condition and deleted")

    def _is_refused(self, key: str, data: bytes, if_match: str | None) -> bool:
        try:
            run_sync(self._store.put(key, data, if_match=if_match, metadata={}))
        except StoreFault as fault:
            if fault.kind is StoreFaultKind.CHANGED:
                return True
            raise
        return False

    def _new_file(self) -> Finding:
        key = PROBE + secrets.token_hex(6)
        try:
            run_sync(self._headed(key))
        except StoreFault as fault:
            if fault.kind is StoreFaultKind.MISSING:
                return ok("s3-new-file", "S3 returns 404 for a missing key, as mount-s3 needs for new files")
            if fault.kind is StoreFaultKind.DENIED:
                has_role = self._workspace.role is not None
                return s3_findings.missing_is_forbidden(lists_below=self._is_listed(key), has_role=has_role)
            return self._refused("s3-new-file", fault)
        return s3_findings.unexpected_object()

    def _renames(self) -> Finding:
        endpoint = self._workspace.endpoint
        if not needs_probe(endpoint):
            return ok("s3-renames", "Amazon S3 is used, which loses no file that is renamed")
        probed = run_sync(probe_renames(self._store, secrets.token_hex(6)))
        self._is_unsafe = probed.renames is Renames.ACCEPTED
        return s3_findings.renames(probed, endpoint or "")

    def _is_listed(self, key: str) -> bool:
        try:
            run_sync(self._store.list_page(key, max_keys=1))
        except StoreFault:
            return False
        return True

    async def _headed(self, key: str) -> None:
        self._probe.head(await self._current(), key)

    def _boundary(self, credentials: Credentials) -> Finding:
        try:
            reached = self._probe.reaches(credentials, self._other_prefix)
        except StoreFault as fault:
            return self._refused("s3-boundary", fault)
        return s3_findings.boundary(reached, has_role=self._workspace.role is not None)

    def _skills(self, credentials: Credentials) -> Finding:
        skills = self._workspace.skills
        if skills is None:
            return skipped("no skills bucket is configured", "s3-skills")[0]
        try:
            count = self._probe.read_skills(credentials)
        except StoreFault as fault:
            return self._refused("s3-skills", fault, f"s3://{skills.bucket}/")
        if not count:
            return warning(
                "s3-skills", f"s3://{skills.bucket}/ is readable, and empty", "Put the skills there."
            )
        return ok("s3-skills", f"s3://{skills.bucket}/ can be listed and read")

    def _refused(self, check: str, fault: StoreFault, where: str = "") -> Finding:
        return from_error(check, store_error(fault, check, where or self._where))
