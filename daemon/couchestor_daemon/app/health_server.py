"""Two small HTTP servers on threads of the supervisor: health and metrics.

Threads, because they must answer while the node starts and drains. That is safe beside spawning
children, since a child is executed afresh and inherits no lock.
"""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Final

from couchestor_daemon.app import child_status
from couchestor_domain import errors

Answer = tuple[int, str, bytes]
_JSON: Final = "application/json"
_SOCKET_SECONDS_MAX: Final = 10.0


class PageServer:
    """Serves GET for a fixed table of paths.

    Raises:
        ConfigurationError: the address cannot be bound.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        name: str,
        pages: Mapping[str, Callable[[], Answer]],
    ) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = _SOCKET_SECONDS_MAX
            server_version = "couchestor"
            sys_version = ""

            def do_GET(self) -> None:
                build = pages.get(self.path.partition("?")[0])
                if build is None:
                    known = ", ".join(pages)
                    self._send((404, "text/plain", f"not found; try {known}\n".encode()))
                else:
                    self._send(build())

            do_HEAD = do_GET

            def _send(self, answer: Answer) -> None:
                status, content_type, body = answer
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Probes come every few seconds; they are not worth a line."""

        class Server(http.server.ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A prober that hangs up is not worth a line either."""

        try:
            self._server = Server((host, port), Handler)
        except OSError as exc:
            raise errors.ConfigurationError(
                f"cannot serve {name} on {host}:{port}: {exc.strerror or exc}; "
                f"choose another with --{name}-port"
            ) from exc
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name=name,
            daemon=True,
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering and free the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def health_pages(board: child_status.Board) -> dict[str, Callable[[], Answer]]:
    """/livez, /readyz and /status."""

    def livez() -> Answer:
        snapshot = board.snapshot()
        body = {
            "live": snapshot.live,
            "tick_age_seconds": round(snapshot.tick_age_seconds, 3),
        }
        return (200 if snapshot.live else 503), _JSON, _encode(body)

    def readyz() -> Answer:
        snapshot = board.snapshot()
        body = {
            "ready": not snapshot.reasons,
            "reasons": snapshot.reasons,
            "warnings": snapshot.warnings,
        }
        return (503 if snapshot.reasons else 200), _JSON, _encode(body)

    def status() -> Answer:
        return 200, _JSON, _encode(board.snapshot().to_dict())

    return {"/livez": livez, "/readyz": readyz, "/status": status}


def _encode(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, default=str).encode() + b"\n"
