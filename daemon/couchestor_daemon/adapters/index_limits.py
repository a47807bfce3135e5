"""Limits every index adapter enforces alike."""

from __future__ import annotations

from couchestor_daemon.ports import index as index_port


def check_key(key: bytes) -> None:
    """Refuse keys the port does not promise to hold: a fault of the caller."""
    if not 1 <= len(key) <= index_port.KEY_BYTES_MAX:
        raise ValueError(f"an index key has 1 to {index_port.KEY_BYTES_MAX} bytes, not {len(key)}")
