"""The implementation of sessions: the sandbox, the S3 workspace, files, jobs, and the two runtimes."""
