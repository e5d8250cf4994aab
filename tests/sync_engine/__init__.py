"""The engine of the synchronised working copy, on an S3 in memory and on the local S3."""
