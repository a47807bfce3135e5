"""What the gateway needs from others."""
