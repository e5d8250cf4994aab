"""Known differences between the local mount-s3, S3 and STS and the originals: the end of a test's id → the reason.

`make test-real` prints the reason in its table, and fails for any other difference.
"""

from __future__ import annotations

DIFFERENCES: dict[str, str] = {
    "test_mount_credentials.py::test_sts_and_s3_by_boto3": "MinIO's STS has no GetCallerIdentity; AWS and moto do.",
}
