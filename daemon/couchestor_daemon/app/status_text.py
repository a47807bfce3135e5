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
    if "node_id" in node:
        lines.append(f"node       {node['node_id']}")
    if "devices_count" in node:
        missing = int(node.get("missing_count", 0))
        text = f"devices    {node['devices_count']} present"
        lines.append(f"{text}, {missing} missing at the last start" if missing else text)
    zones = node.get("zones") or {}
    if zones:
        width = max(map(len, zones))
        lines.append("zones")
        lines += [
            f"  {label:<{width}}  {found['used']} used, {found['free']} free"
            for label, found in sorted(zones.items())
        ]
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
