"""The host's part of synchronised workspaces (``s3Mode: sync``): the sandbox has a copy of the files in S3."""
