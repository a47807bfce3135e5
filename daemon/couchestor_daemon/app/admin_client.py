"""Requests to the running node of a data directory, signed with its root credentials."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final

from couchestor_daemon.app import credentials_file, settings, status_request
from couchestor_domain import errors
from couchestor_gateway.protocol import admin_signature

TIMEOUT_SECONDS: Final = 60.0
"""A command that waits for room, or for a large bucket to be counted, takes long."""


def path_of(*parts: str) -> str:
    """A path, each part percent-encoded."""
    return "/".join(("", "v1", *(urllib.parse.quote(part, safe="") for part in parts)))


class AdminClient:
    """Asks the node that the settings mean.

    Raises:
        ConfigurationError: no such node runs, or its root credentials cannot be read.
    """

    def __init__(self, told: settings.Settings) -> None:
        self._root = credentials_file.load(told.credentials_path, os.environ)
        self._url = str(status_request.ask(told).get("admin_url") or told.admin_url)

    def ask(
        self, method: str, path: str, document: Mapping[str, Any] | bytes | None = None
    ) -> dict[str, Any]:
        """The document of the answer.

        Raises:
            NodeError: refused, with the node's own sentence, or no answer.
            ConfigurationError: these are not the node's root credentials.
        """
        body = document if isinstance(document, bytes) else b""
        if isinstance(document, Mapping):
            body = json.dumps(document).encode()
        host = urllib.parse.urlsplit(self._url).netloc
        headers = admin_signature.headers_for(
            method,
            path,
            body,
            host=host,
            access_key=self._root.access_key,
            secret_key=self._root.secret_key,
            now_seconds=int(time.time()),
        )
        try:
            connection = http.client.HTTPConnection(host, timeout=TIMEOUT_SECONDS)
            try:
                connection.request(method, path, body=body, headers=headers)
                response = connection.getresponse()
                status, found = response.status, json.loads(response.read())
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise errors.NodeError(
                f"the node at {self._url} did not answer ({exc}): look whether the command took"
                " effect before you repeat it"
            ) from exc
        if status < 300 and isinstance(found, dict):
            return found
        if status == 403:
            raise errors.ConfigurationError(
                f"the node does not take these root credentials ({self._root.source}):"
                f" {_sentence(found)}"
            )
        raise errors.NodeError(_sentence(found))


def _sentence(found: object) -> str:
    try:
        return str(found["error"]["message"])  # type: ignore[index]
    except (KeyError, TypeError):
        return "the answer is not a node's: name its --data-dir"
