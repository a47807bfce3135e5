"""``couchestor status`` for a person: the node's own account in a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_ACTIONS: Final = {
    "initialise": "started for the first time",
    "use": "went on with its index",
    "rebuild": "rebuilt its index from the log",
}


def render(found: Mapping[str, Any]) -> str:
    """Lines for the document of ``/status``; what it does not hold is left out."""
    lines = []
    if found.get("ready"):
        lines.append("the node takes requests")
    else:
        reasons = "; ".join(map(str, found.get("reasons", []))) or "no reason is given"
        lines.append(f"the node takes no requests: {reasons}")
    lines += [f"warning: {warning}" for warning in found.get("warnings", [])]
    node = found.get("node") or {}
    if "data_dir" in found:
        lines.append(f"data       {found['data_dir']}")
    if "node_id" in node:
        lines.append(f"node       {node['node_id']}")
    devices = node.get("device_counts") or {}
    if devices:
        away = devices["members"] - devices["in_service"]
        text = f"devices    {devices['in_service']} in service"
        lines.append(f"{text}, {away} not" if away else text)
    zones = node.get("zones") or {}
    if zones:
        width = max(map(len, zones))
        lines.append("zones")
        lines += [
            f"  {label:<{width}}  {_zones_text(found)}" for label, found in sorted(zones.items())
        ]
    lines += _repair_lines(node) + _moving_lines(node)
    if "action" in node:
        did = _ACTIONS.get(str(node["action"]), str(node["action"]))
        replayed = int(node.get("replayed_batches_count", 0))
        lines.append(f"last start {did}" + (f" ({replayed} batches)" if replayed else ""))
    children = found.get("children", [])
    if children:
        width = max(len(str(child["name"])) for child in children)
        lines.append("processes")
        for child in children:
            text = f"  {child['name']!s:<{width}}  {child['state']}"
            if child.get("pid"):
                text += f", pid {child['pid']}"
            if child.get("restart_count"):
                text += f", restarted {child['restart_count']} times, last {child['last_exit']}"
            lines.append(text)
    return "\n".join(lines)


def _zones_text(found: Mapping[str, Any]) -> str:
    if not found.get("retiring"):
        return f"{found['used']} used, {found['free']} free"
    if found["used"]:
        return f"retiring: {found['used']} zones are still to be emptied"
    return "retiring: empty, `couchestor device remove` takes it out"


def _repair_lines(node: Mapping[str, Any]) -> list[str]:
    lines = []
    rebuild = node.get("rebuild") or {}
    if rebuild.get("groups_waiting"):
        mib = int(rebuild["left_bytes"]) >> 20
        text = f"rebuild    {rebuild['groups_waiting']} groups wait, up to {mib} MiB to write"
        seconds_left = rebuild.get("seconds_left")
        lines.append(f"{text}, about {seconds_left} s" if seconds_left else text)
    scrub = node.get("scrub") or {}
    now, last = scrub.get("now") or {}, scrub.get("last") or {}
    if now and not now.get("ended_at"):
        lines.append(f"scrub      {int(now['read_bytes']) >> 20} MiB read since {now['began_at']}")
        now = last
    if now and now.get("ended_at"):
        lines.append(
            f"last scrub {now['ended_at']}: {now['shards_verified']} shards verified, "
            f"{now['shards_damaged']} damaged, {now['other_findings']} other findings, "
            f"{now['shards_rebuilt']} rebuilt before its end and "
            f"{scrub['shards_rebuilt_since']} since"
        )
    return lines


def _moving_lines(node: Mapping[str, Any]) -> list[str]:
    balance = node.get("balance") or {}
    lines = [
        f"draining   {label}: " + (f"{count} zones left" if count else "empty")
        for label, count in sorted((balance.get("draining") or {}).items())
    ]
    if balance.get("zones_left"):
        lines.append(f"balance    about {balance['zones_left']} zones to move to emptier devices")
    return lines + _stranded_lines(node)


def _stranded_lines(node: Mapping[str, Any]) -> list[str]:
    moving = node.get("moving") or {}
    if not moving.get("groups"):
        return []
    text = f"moving     {moving['groups']} groups to "
    text += f"{moving['data_shards']} + {moving['parity_shards']}: "
    text += f"no device is free to take the place of {', '.join(moving['in_place_of'])}"
    return [text]
