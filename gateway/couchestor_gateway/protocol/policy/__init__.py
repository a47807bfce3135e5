"""Bucket policies: reading and checking them, and what they say of a request."""
