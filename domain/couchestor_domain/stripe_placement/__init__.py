"""Where the shards of stripe groups lie in a cluster: pure functions of devices and groups."""
