"""Which version of CoucheStor is installed."""

from __future__ import annotations

import importlib.metadata


def installed() -> str:
    """As the package says; ``unknown`` where it runs without having been installed."""
    try:
        return importlib.metadata.version("couchestor")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
