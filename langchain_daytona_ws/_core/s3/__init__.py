"""File operations directly on S3, without a sandbox, with the same rules and results as in the guest."""
