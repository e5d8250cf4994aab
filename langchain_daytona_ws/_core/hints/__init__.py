"""Advice for the model: what works on an S3 mount, and why a command failed."""
