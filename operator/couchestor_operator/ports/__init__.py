"""What the control plane needs of its surroundings."""
