"""Uploads and downloads of files and directories between the host and the workspace."""
