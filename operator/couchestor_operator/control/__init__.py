"""Decisions: pure and synchronous. Nothing here reads a clock, a network or a file."""
