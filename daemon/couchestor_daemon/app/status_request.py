"""What a running node says of itself, asked for over HTTP on this machine."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Final

from couchestor_daemon.app import node_address, settings
from couchestor_domain import errors

TIMEOUT_SECONDS: Final = 5.0
# The node is on this machine: what proxies a person has set for the world is beside the point.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def ask(told: settings.Settings) -> dict[str, object]:
    """The document of ``/status`` of the node that the settings mean.

    A health address of its own in the settings is asked; else the one where the node of the data
    directory said it answers. What another node answers is refused, unless only an address was
    named.

    Raises:
        ConfigurationError: no node answers, it is another one, or what answers is no node.
    """
    usual = settings.Settings()
    names_address = told.health_url != usual.health_url and told.health_port != 0
    names_node = told.data_dir != usual.data_dir
    base = "" if names_address else node_address.recall(told.data_dir)
    if not base and told.health_port:
        base = told.health_url
    if not base:
        raise errors.ConfigurationError(
            f"no node runs under {told.data_dir}; start it, or name its --data-dir or --health-port"
        )
    found = _fetch(f"{base}/status")
    theirs = found.get("data_dir")
    if theirs != str(told.data_dir.resolve()) and (
        names_node or (not names_address and told.data_dir.is_dir())
    ):
        raise errors.ConfigurationError(
            f"the node that answers at {base} keeps its data in {theirs}, not in "
            f"{told.data_dir}: that one does not run, or it answers elsewhere, which --health-port "
            "says"
        )
    return found


def _fetch(url: str) -> dict[str, object]:
    try:
        with _open(url, timeout=TIMEOUT_SECONDS) as answer:
            found = json.load(answer)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as exc:
        # What another protocol says first is part of it, line ends and all.
        reason = " ".join(str(exc).split())[:200]
        raise errors.ConfigurationError(
            f"no node answers at {url} ({reason}); start it, or name its --data-dir or "
            "--health-port"
        ) from exc
    if not isinstance(found, dict) or not {"phase", "ready", "data_dir"} <= found.keys():
        raise errors.ConfigurationError(
            f"what answers at {url} is no node: start one, or name its --data-dir or --health-port"
        )
    return found
