"""The aiohttp edge."""
