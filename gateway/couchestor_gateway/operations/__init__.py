"""One S3 operation per module."""
