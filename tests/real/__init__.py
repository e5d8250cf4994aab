"""The original mount-s3, and a store such as MinIO, in place of the local ones: `make test-real`."""

# Of the environment, since the tests of faults start servers in processes of their own.
MOUNT_S3 = "TEST_REAL_MOUNT_S3"
ENDPOINT, ACCESS_KEY, SECRET_KEY = (
    "TEST_REAL_S3_ENDPOINT",
    "TEST_REAL_S3_ACCESS_KEY",
    "TEST_REAL_S3_SECRET_KEY",
)
