"""The host's part of synchronised workspaces (``s3Mode: sync``): the sandbox has a working copy of the files in S3."""
