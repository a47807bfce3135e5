"""Wiring: the commands of the control plane."""
