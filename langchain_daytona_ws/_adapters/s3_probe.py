"""S3 requests of ``doctor``, such as unsigned requests and requests outside of the prefix. Sessions never send them."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any

from langchain_daytona_ws._adapters.boto_calls import boto_call
from langchain_daytona_ws._adapters.s3_bucket import Bucket
from langchain_daytona_ws._core.s3.store import Credentials, StoreFault, StoreFaultKind
from langchain_daytona_ws._core.s3.workspace import S3Workspace

# Placeholders: requests with these credentials are not signed.
_UNSIGNED = Credentials("unsigned", "unsigned")


class S3Probe:
    """Checks one workspace's S3. All methods block, and raise only StoreFault."""

    def __init__(self, workspace: S3Workspace) -> None:
        self._workspace = workspace
        self._bucket = Bucket(workspace)

    def close(self) -> None:
        self._bucket.close()

    @boto_call()
    def server_time(self) -> tuple[float, float, float]:
        """Return S3's time. The request is not signed: S3 refuses signed requests if this machine's clock is wrong.

        Returns:
            Unix times in seconds: this machine's before the request, S3's (whole seconds), this machine's after it.

        Raises:
            StoreFault: There was no response with a date.
        """
        from botocore.exceptions import ClientError
        from botocore.handlers import disable_signing

        reads = self._bucket.clients(_UNSIGNED).reads
        reads.meta.events.register("choose-signer.s3", disable_signing)
        before_s = time.time()
        answer: Any
        try:
            answer = reads.head_bucket(Bucket=self._workspace.workspace.bucket)
        except ClientError as error:
            answer = error.response  # an error response has a date too
        after_s = time.time()
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        return before_s, parsedate_to_datetime(headers["date"]).timestamp(), after_s

    @boto_call()
    def head(self, credentials: Credentials, key: str) -> None:
        """Request an object below the prefix by HEAD, as mount-s3 does.

        Raises:
            StoreFault: The request failed. MISSING: the object does not exist. DENIED: S3 refuses the request; without
                s3:ListBucket, S3 also refuses requests for a missing object.
        """
        location = self._workspace.workspace
        reads = self._bucket.clients(credentials).reads
        reads.head_object(Bucket=location.bucket, Key=location.prefix + key)

    def reaches(self, credentials: Credentials, prefix: str) -> str | None:
        """Test whether S3 refuses to list a prefix outside of the workspace, and to read a missing object there.

        Returns:
            ``"listed"`` or ``"read"`` for the first request that was allowed, None if both were refused. None does not
            prove that existing objects are unreadable: without s3:ListBucket, S3 refuses each request for a missing
            object.

        Raises:
            StoreFault: S3 neither allowed nor refused a request.
        """
        reads, bucket = self._bucket.clients(credentials).reads, self._workspace.workspace.bucket

        @boto_call()
        def listing() -> None:
            reads.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)

        @boto_call()
        def reading() -> None:
            reads.get_object(Bucket=bucket, Key=f"{prefix}none")["Body"].close()

        for action, attempt in (("listed", listing), ("read", reading)):
            try:
                attempt()
            except StoreFault as fault:
                if fault.kind is StoreFaultKind.DENIED:
                    continue
                # S3 answers "no such object" only if reading is allowed.
                if fault.kind is not StoreFaultKind.MISSING:
                    raise
            return action
        return None

    @boto_call()
    def read_skills(self, credentials: Credentials) -> int:
        """List the first page of the skills bucket; return its number of keys.

        Also read one byte of the first object that is not empty.
        """
        if self._workspace.skills is None:
            raise ValueError("this workspace has no skills")
        bucket, reads = self._workspace.skills.bucket, self._bucket.clients(credentials).reads

        found = reads.list_objects_v2(Bucket=bucket, MaxKeys=1000).get("Contents", [])
        keys = [entry["Key"] for entry in found if entry["Size"]]
        if keys:
            reads.get_object(Bucket=bucket, Key=keys[0], Range="bytes=0-0")["Body"].close()
        return len(found)
