"""Wiring, processes and the command line: the only place where adapters are built."""
