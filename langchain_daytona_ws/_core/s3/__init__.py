"""File operations straight on S3, with no sandbox: the same requests and answers as the guest's."""
