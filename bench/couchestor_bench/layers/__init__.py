"""Benchmarks of the layers below S3, through their ports."""
