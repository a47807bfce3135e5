"""``couchestor-operator``: settings, logs, event loop, exit status."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import sys
from typing import Final

import uvloop

from couchestor_domain import errors
from couchestor_operator.adapters import kube_access
from couchestor_operator.app import logs, operator_process, settings

_LOG = logging.getLogger(__name__)

STATUS_CONFIGURATION: Final = 2
STATUS_FAILED: Final = 1


def main() -> int:
    """Run until SIGTERM or SIGINT. Returns: the exit status."""
    json_lines = False
    try:
        told = settings.from_words(sys.argv[1:], os.environ)
        if told.lease_namespace is None:
            told = dataclasses.replace(told, lease_namespace=kube_access.own_namespace())
        json_lines = told.log_json
        logs.configure(json_lines=told.log_json, level=told.log_level)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(operator_process.run(told))
    except errors.ConfigurationError as exc:
        logs.complain(exc.message, json_lines=json_lines)
        return STATUS_CONFIGURATION
    except Exception:
        _LOG.exception("the operator ends by a fault of its own")
        return STATUS_FAILED
    return 0
