"""The workspace's mount-s3 mounts, and the snapshots that can mount."""
