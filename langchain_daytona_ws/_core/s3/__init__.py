"""File operations directly on S3, without a sandbox, with the requests and answers of the guest."""
