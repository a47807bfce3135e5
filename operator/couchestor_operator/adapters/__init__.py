"""The edge: what speaks to Prometheus and Kubernetes. Foreign exceptions become ours here."""
