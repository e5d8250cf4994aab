"""Run tests with the original mount-s3, and with a store such as MinIO instead of the local S3: `make test-real`."""

# Environment variables, because the fault tests start servers in other processes.
MOUNT_S3 = "TEST_REAL_MOUNT_S3"
ENDPOINT, ACCESS_KEY, SECRET_KEY = (
    "TEST_REAL_S3_ENDPOINT",
    "TEST_REAL_S3_ACCESS_KEY",
    "TEST_REAL_S3_SECRET_KEY",
)
