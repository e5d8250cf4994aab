"""A stand-in for mount-s3 (Mountpoint for Amazon S3): its command line, and errno by errno what its mounts do.

This package is copied to where sandboxes find it and is run there, by the sandbox's own Python; it imports
nothing of the rest. What it knows of the original is from the original's documentation and source (v1.24).
"""
