"""What the data plane does, over its ports."""
