"""The load generator: connections, operations, processes, and what is sampled beside them."""
