"""What the operator does with its decisions, over the ports."""
