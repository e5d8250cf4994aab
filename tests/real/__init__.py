"""The original mount-s3, and a store such as MinIO, in place of the local ones: `make test-real`."""
