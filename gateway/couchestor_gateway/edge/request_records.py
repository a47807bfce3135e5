"""What is kept of requests: their metrics and their lines in the access log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, Protocol

from aiohttp import web

from couchestor_domain import objects
from couchestor_gateway.edge import addressing
from couchestor_gateway.edge import request as s3_request

ACCESS_LOG: Final = logging.getLogger("couchestor.access")

MetricsHook = Callable[[str, int, float, int, int], None]
"""Called after each request: operation, status, seconds, bytes in, bytes out."""


class Reception(Protocol):
    """Whoever reads a request's body."""

    @property
    def received_bytes(self) -> int:
        """Bytes of the body taken from the connection so far, framing included."""
        ...

    @property
    def is_over_limit(self) -> bool:
        """Whether the request is one more than its sender may send now."""
        ...


class Trace:
    """What is known about a request so far, for its log line and metrics."""

    __slots__ = (
        "access_key",
        "bytes_out",
        "error_code",
        "head",
        "operation",
        "reception",
        "request_id",
        "status",
        "target",
    )

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.operation = "Unknown"
        self.access_key = ""
        self.status = 499
        self.bytes_out = 0
        self.error_code = ""
        self.reception: Reception | None = None
        self.target: addressing.Target | None = None
        self.head: s3_request.S3Request | None = None

    @property
    def is_our_failure(self) -> bool:
        """Whether the request failed through no fault of its client."""
        # What clients do as often as they like: ask for what is not there, send too much.
        if self.status < 500 or self.status == HTTPStatus.NOT_IMPLEMENTED:
            return False
        return self.reception is None or not self.reception.is_over_limit

    @property
    def bucket(self) -> objects.BucketRecord | None:
        """The request's bucket, if it was looked at."""
        return None if self.head is None else self.head.known_bucket

    @property
    def object_bytes(self) -> int | None:
        """Size of the object that the request is about, as far as it is known."""
        if self.head is not None and self.head.found_bytes is not None:
            return self.head.found_bytes
        return self.received_bytes or None

    @property
    def received_bytes(self) -> int:
        """Bytes of the body taken from the connection so far."""
        return 0 if self.reception is None else self.reception.received_bytes


class Records:
    """Where finished requests go.

    Args:
        metrics: Told about every one.
        access_log: Log every one; else only those that are our failure.
    """

    __slots__ = ("_access_log", "_metrics")

    def __init__(self, metrics: MetricsHook | None, *, access_log: bool) -> None:
        self._metrics = metrics
        self._access_log = access_log

    def add(self, request: web.BaseRequest, trace: Trace, seconds: float) -> None:
        """A request has been answered or broken off after ``seconds``."""
        if self._metrics is not None:
            self._metrics(
                trace.operation, trace.status, seconds, trace.received_bytes, trace.bytes_out
            )
        if (self._access_log or trace.is_our_failure) and ACCESS_LOG.isEnabledFor(logging.INFO):
            ACCESS_LOG.info(
                "%s %s %d",
                request.method,
                trace.operation,
                trace.status,
                extra={
                    "request_id": trace.request_id,
                    "operation": trace.operation,
                    "method": request.method,
                    # The query may carry a presigned signature, so only the path is logged.
                    "path": request.raw_path.partition("?")[0],
                    "status": trace.status,
                    "seconds": seconds,
                    "bytes_in": trace.received_bytes,
                    "bytes_out": trace.bytes_out,
                    "access_key": trace.access_key,
                    "remote": request.remote,
                },
            )
