"""S3 protocol rules: pure, synchronous, no aiohttp."""
