"""A local replacement for mount-s3 (Mountpoint for Amazon S3), with the same command line and error numbers.

This package is copied into the sandboxes and run by their Python; it imports no other module of the project. Facts
about the original are from its documentation and source (v1.24), and from measurements.
"""
