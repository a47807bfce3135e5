"""Node-level benchmark tool, micro-benchmarks, side-by-side runs."""
