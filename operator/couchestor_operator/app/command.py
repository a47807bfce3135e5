"""``couchestor-operator``: settings, logs, exit status."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from typing import Final

from couchestor_domain import errors
from couchestor_operator.adapters import kube_access
from couchestor_operator.app import logs, settings

_LOG = logging.getLogger(__name__)

STATUS_CONFIGURATION: Final = 2
STATUS_FAILED: Final = 1


def main(words: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT.

    Args:
        words: After the program's name; None: of the command line.

    Returns:
        The exit status.
    """
    json_lines = False
    try:
        told = settings.from_words(sys.argv[1:] if words is None else words, os.environ)
        json_lines = told.log_json
        if told.lease_namespace is None:
            told = dataclasses.replace(told, lease_namespace=kube_access.own_namespace())
        logs.configure(json_lines=told.log_json, level=told.log_level)
        _run(told)
    except errors.ConfigurationError as exc:
        logs.complain(exc.message, json_lines=json_lines)
        return STATUS_CONFIGURATION
    except Exception:
        _LOG.exception("the operator ends by a fault of its own")
        return STATUS_FAILED
    return 0


def _run(told: settings.Settings) -> None:
    try:
        # Not above: where a part is missing, that is to be told, and --help has to work.
        from couchestor_operator.app import operator_process
    except ModuleNotFoundError as exc:
        raise errors.ConfigurationError(
            f"the operator needs {exc.name}, which is not installed; run: "
            "pip install 'couchestor[operator]'"
        ) from exc
    operator_process.run_to_the_end(told)
