"""What of a node's own account a person should look at, and what makes it unfit to serve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def warnings(node: Mapping[str, Any]) -> list[str]:
    """Sentences about storage, the gravest first. What the account does not hold is left out.

    Args:
        node: What the processes of the node have reported, as under ``node`` in ``/status``.
    """
    found = _of_devices(node.get("device_counts") or {})
    if failed_count := int((node.get("rebuild") or {}).get("groups_failed", 0)):
        found.append(f"{failed_count} groups have lost bytes, see the log")
    found += [
        f"device {label} is out of service: {reason}"
        for label, reason in sorted((node.get("departed") or {}).items())
    ]
    found += [
        f"device {label} is missing; it was last seen at {path}"
        for label, path in sorted((node.get("missing") or {}).items())
    ]
    found += [
        f"device {label} is {text}"
        for label, text in sorted((node.get("mistrusted") or {}).items())
    ]
    moving = node.get("moving") or {}
    if moving.get("groups") and moving.get("waits_for_room"):
        found.append(
            f"{moving['groups']} groups over lost devices wait for room to move: delete objects or "
            "add devices"
        )
    return found


def reasons_not_to_serve(node: Mapping[str, Any]) -> list[str]:
    """Why no request can be answered well, whatever the processes are doing."""
    devices = node.get("device_counts") or {}
    if devices and not devices["in_service"]:
        return [f"none of the node's {devices['members']} devices is in service"]
    return []


def _of_devices(devices: Mapping[str, int]) -> list[str]:
    if not devices:
        return []
    found = []
    away_count = devices["members"] - devices["in_service"]
    if away_count > devices["losses_survived"]:
        found.append(
            f"{away_count} of {devices['members']} devices are out of service, more than the "
            f"{devices['losses_survived']} that may be: part of what is stored cannot be read "
            "before some of them are back"
        )
    if devices["taking_writes"] < devices["writes_need"]:
        found.append(
            f"writes are refused with 503: {devices['taking_writes']} devices take them and "
            f"{devices['writes_need']} are needed"
        )
    return found
