"""The synchronised working copy of an S3 workspace: the host's part."""
