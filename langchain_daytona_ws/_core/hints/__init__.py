"""Advice for the model: working alternatives to commands that fail on an S3 mount."""
