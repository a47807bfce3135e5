"""What the operator and the daemon of a node say to each other: records and the HTTP contract."""
