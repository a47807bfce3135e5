"""The S3 protocol and its HTTP edge. Owns the ports that a data plane implements."""
