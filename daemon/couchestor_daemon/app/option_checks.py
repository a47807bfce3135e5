"""Which settings do not fit together."""

from __future__ import annotations

import ipaddress
import pathlib
from collections.abc import Mapping
from typing import Final

from couchestor_daemon.adapters import local_parity
from couchestor_daemon.app import node_file, settings
from couchestor_domain import errors, geometry, units

JOURNALED_BYTES_MAX: Final = 4 * units.MIB
"""Such a payload still shares a commit's buffer with its mutations."""


def check_together(value: settings.Settings, sources: Mapping[str, str]) -> None:
    """Refuse settings that are fine one by one and impossible together.

    Args:
        sources: Setting -> where it was set, for those that were.

    Raises:
        ConfigurationError: one line naming what does not fit and where it was set.
    """

    def refuse(message: str, *names: str) -> None:
        where = ", ".join(sources[name] for name in names if name in sources)
        raise errors.ConfigurationError(message + (f" (set by {where})" if where else ""))

    count = len(value.device_paths)
    width = value.data_shards + value.parity_shards
    if count < max(width, value.journal_replica_count):
        count = len(node_file.with_added_devices(value).device_paths)
    if len(set(value.devices)) != len(value.devices):
        refuse("a device is named twice", "devices")
    if width > count:
        refuse(
            f"{value.data_shards}+{value.parity_shards} coding needs {width} devices, "
            f"{count} are configured",
            "data_shards",
            "parity_shards",
            "devices",
        )
    try:
        shape = geometry.StripeGeometry(value.data_shards, value.parity_shards)
    except errors.InvalidEcConfigurationError as exc:
        refuse(exc.message, "data_shards", "parity_shards")
        raise
    if value.codec == "lrc" and local_parity.failures_tolerated(shape) < value.parity_shards:
        refuse(
            f"codec lrc with {shape} survives any {local_parity.failures_tolerated(shape)} lost "
            f"devices, not the {value.parity_shards} that parity_shards promises: choose codec rs, "
            f"which reads what lrc wrote, or parity_shards of {local_parity.LOCAL_GROUPS} at most",
            "codec",
            "parity_shards",
        )
    if value.journal_replica_count > count:
        refuse(
            f"{value.journal_replica_count} journal replicas need as many devices, "
            f"{count} are configured",
            "journal_replicas",
            "devices",
        )
    if units.ceil_div(value.stripe_bytes, value.data_shards) * 2 > value.zone_bytes:
        refuse("a zone must hold at least two full chunks", "zone_bytes", "stripe_bytes")
    if value.journal_threshold_bytes > min(JOURNALED_BYTES_MAX, value.zone_bytes // 2):
        refuse(
            "journal_threshold_bytes can be half a zone, and 4 MiB, at most",
            "journal_threshold_bytes",
            "zone_bytes",
        )
    if (value.tls_cert is None) != (value.tls_key is None):
        refuse("tls_cert and tls_key belong together: set both", "tls_cert", "tls_key")
    for name in ("tls_cert", "tls_key"):
        path: pathlib.Path | None = getattr(value, name)
        if path is not None:
            try:
                path.open("rb").close()
            except OSError as exc:
                refuse(f"cannot read {path}: {exc.strerror}", name)
    places = {
        "port": (value.host, value.port),
        "metrics_port": (value.metrics_host, value.metrics_port),
        "health_port": (value.health_host, value.health_port),
        "admin_port": (value.admin_host, value.admin_port),
    }
    fixed = [place for place in places.values() if place[1]]
    if len(set(fixed)) != len(fixed):
        refuse("port, metrics_port, health_port and admin_port must differ", *places)
    if not _is_loopback(value.admin_host):
        refuse(
            f"admin_host {value.admin_host} is no loopback address such as 127.0.0.1: secrets are"
            " answered there, and not encrypted",
            "admin_host",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
