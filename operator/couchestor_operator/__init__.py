"""The control plane: tiering policies, safe migration, stripe assignment."""
