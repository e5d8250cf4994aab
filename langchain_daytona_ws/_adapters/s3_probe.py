"""What a session never asks of S3, and a diagnosis has to: outside of the prefix, unsigned, by HEAD."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from langchain_daytona_ws._core.store import Credentials, StoreFault, StoreFaultKind
from langchain_daytona_ws._core.workspace import S3Workspace

if TYPE_CHECKING:
    from langchain_daytona_ws._adapters.s3_clients import Clients

# Nothing is signed with them.
_NOBODY = Credentials("unsigned", "unsigned")


class S3Probe:
    """Looks at one workspace's S3. All methods block, and raise only StoreFault.

    Args:
        workspace: Whose.
    """

    def __init__(self, workspace: S3Workspace) -> None:
        from langchain_daytona_ws._adapters.s3_clients import ClientSets

        self._workspace = workspace
        self._sets = ClientSets(workspace)

    def close(self) -> None:
        """Close all connections."""
        self._sets.close()

    def server_time(self) -> tuple[float, float, float]:
        """Ask S3 for the time, unsigned, so that no clock can be a reason to refuse.

        Returns:
            Unix time here before, as S3 told it (whole seconds), and here after.

        Raises:
            StoreFault: There was no answer, or none with a date.
        """
        from botocore.exceptions import ClientError
        from botocore.handlers import disable_signing

        from langchain_daytona_ws._adapters.s3_faults import translated

        reads = self._using(_NOBODY).reads
        reads.meta.events.register("choose-signer.s3", disable_signing)
        with translated():
            before_s = time.time()
            answer: Any
            try:
                answer = reads.head_bucket(Bucket=self._workspace.workspace.bucket)
            except ClientError as error:
                answer = error.response  # whatever else it says, it has a date
            after_s = time.time()
            headers = answer["ResponseMetadata"]["HTTPHeaders"]
            return before_s, parsedate_to_datetime(headers["date"]).timestamp(), after_s

    def head(self, credentials: Credentials, key: str) -> None:
        """Ask for an object below the prefix by HEAD, as mount-s3 does.

        Raises:
            StoreFault: MISSING when S3 says that there is none; DENIED also where it does not tell whether there is.
        """
        from langchain_daytona_ws._adapters.s3_faults import translated

        where = self._workspace.workspace
        with translated():
            self._using(credentials).reads.head_object(Bucket=where.bucket, Key=where.prefix + key)

    def reaches(self, credentials: Credentials, prefix: str) -> str | None:
        """Try what must be refused: to list under another prefix, and to read there.

        Args:
            credentials: The workspace's own.
            prefix: Somebody else's, or nobody's; not the workspace's.

        Returns:
            What was not refused, None when all was.

        Raises:
            StoreFault: S3 did neither allow nor refuse.
        """
        from langchain_daytona_ws._adapters.s3_faults import translated

        reads, bucket = self._using(credentials).reads, self._workspace.workspace.bucket

        def listing() -> None:
            reads.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)

        def reading() -> None:
            reads.get_object(Bucket=bucket, Key=f"{prefix}none")["Body"].close()

        for what, attempt in (("listed", listing), ("read", reading)):
            try:
                with translated():
                    attempt()
            except StoreFault as fault:
                if fault.kind is StoreFaultKind.DENIED:
                    continue
                # "There is no such object" is what only those are told who may read it.
                if fault.kind is not StoreFaultKind.MISSING:
                    raise
            return what
        return None

    def read_skills(self, credentials: Credentials) -> int:
        """List the skills bucket and read the beginning of what is there; return how many keys the first page has."""
        from langchain_daytona_ws._adapters.s3_faults import translated

        if self._workspace.skills is None:
            raise ValueError("this workspace has no skills")
        bucket, reads = self._workspace.skills.bucket, self._using(credentials).reads
        with translated():
            found = reads.list_objects_v2(Bucket=bucket, MaxKeys=1000).get("Contents", [])
            keys = [one["Key"] for one in found if one["Size"]]
            if keys:
                reads.get_object(Bucket=bucket, Key=keys[0], Range="bytes=0-0")["Body"].close()
            return len(found)

    def _using(self, credentials: Credentials) -> Clients:
        from langchain_daytona_ws._adapters.s3_faults import translated

        with translated():
            return self._sets.using(credentials)
