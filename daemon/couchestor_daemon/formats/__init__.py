"""On-media structures: pure packing and verification, one module each."""
