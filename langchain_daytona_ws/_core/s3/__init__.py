"""File operations directly on S3. They have the same rules and results as file operations in a sandbox."""
