"""Which requests go into the logs of buckets, and what their lines say.

A request of a bucket without a log costs a look at the bucket's record, which it has read anyway.
"""

from __future__ import annotations

import functools
import logging
from typing import Final

import aiohttp
from aiohttp import web

from couchestor_domain import errors, objects, units
from couchestor_gateway.edge import log_collector, request_head, request_records
from couchestor_gateway.ports import clock as clock_port
from couchestor_gateway.ports import object_store
from couchestor_gateway.protocol import access_log_line, logging_status, s3_error, sigv2

LOG: Final = logging.getLogger("couchestor.gateway")

_KEPT_COUNT: Final = 256


def may_concern(trace: request_records.Trace) -> bool:
    """Whether a request may go into a log: its bucket has settings, or was not looked at."""
    bucket = trace.bucket
    return trace.status >= 400 if bucket is None else bool(bucket.settings)


class BucketLogs:
    """Puts requests into the logs of their buckets.

    Args:
        host_id: Which gateway answers, as its answers tell.
    """

    def __init__(
        self,
        collector: log_collector.LogCollector,
        buckets: object_store.BucketStore,
        *,
        clock: clock_port.Clock,
        host_id: str,
    ) -> None:
        self._collector = collector
        self._buckets = buckets
        self._clock = clock
        self._host_id = host_id

    async def add(
        self, request: web.BaseRequest, trace: request_records.Trace, *, seconds: float
    ) -> None:
        """Put a request that has been answered into the log of its bucket, if that has one.

        No answer depends on it: nothing is raised.

        Args:
            seconds: What it took.
        """
        try:
            bucket = trace.bucket or await self._refused_bucket(trace)
            document = None if bucket is None else bucket.settings.get(objects.Setting.LOGGING)
            where = None if document is None else _ready(document)
            if bucket is None or where is None:
                return
            time_ns = self._clock.now_ns() - int(seconds * units.NS_PER_SECOND)
            served = _served(
                request,
                trace,
                bucket,
                time_ns=time_ns,
                seconds=seconds,
                host_id=self._host_id,
            )
            self._collector.add(bucket, where, access_log_line.write(served), time_ns=time_ns)
        except Exception:
            LOG.exception("request %s is not in its bucket's log", trace.request_id)

    async def _refused_bucket(self, trace: request_records.Trace) -> objects.BucketRecord | None:
        """The bucket of a request that was refused before its bucket was looked at."""
        target = trace.target
        if target is None or not target.bucket:
            return None
        try:
            return await self._buckets.get_bucket(target.bucket)
        except errors.CouchestorError:
            return None


def _served(
    request: web.BaseRequest,
    trace: request_records.Trace,
    bucket: objects.BucketRecord,
    *,
    time_ns: int,
    seconds: float,
    host_id: str,
) -> access_log_line.Served:
    headers, head = request.headers, trace.head
    cipher, tls_version = _tls(request)
    signature = auth_type = requester = ""
    version_id = "" if head is None else head.query.get("versionId", "")
    if head is not None and head.caller is not None:
        requester = head.caller
        signature = "SigV2" if head.signature_version() == sigv2.SCHEME else "SigV4"
        is_header = head.auth_type() == "REST-HEADER"
        auth_type = "AuthHeader" if is_header else "QueryString"
    key = head.key if head is not None else trace.target.key if trace.target is not None else ""
    return access_log_line.Served(
        bucket_owner=bucket.owner,
        bucket=bucket.name,
        time_ns=time_ns,
        remote_ip=request_head.address_of(request) or "",
        requester=requester,
        request_id=trace.request_id,
        operation=trace.operation,
        method=request.method,
        key=key,
        target=request.raw_path,
        http_version="HTTP/1.0" if request.version < aiohttp.HttpVersion11 else "HTTP/1.1",
        status=trace.status,
        error_code=trace.error_code,
        sent_bytes=trace.bytes_out,
        object_bytes=trace.object_bytes,
        total_ms=max(0, round(seconds * 1_000)),
        referer=headers.get("Referer", ""),
        user_agent=headers.get("User-Agent", ""),
        version_id=version_id,
        host_id=host_id,
        signature=signature,
        cipher=cipher,
        auth_type=auth_type,
        host=headers.get("Host", ""),
        tls_version=tls_version,
    )


def _tls(request: web.BaseRequest) -> tuple[str, str]:
    """Cipher and version of a connection; empty without TLS."""
    transport = request.transport
    tls = None if transport is None else transport.get_extra_info("ssl_object")
    if tls is None:
        return "", ""
    cipher = tls.cipher()
    return "" if cipher is None else str(cipher[0]), tls.version() or ""


@functools.lru_cache(maxsize=_KEPT_COUNT)
def _ready(document: bytes) -> logging_status.Logging | None:
    try:
        return logging_status.parse(document, users=None)
    except s3_error.S3Error as exc:
        LOG.error("where a log goes cannot be read, so nothing is logged: %s", exc.message)
        return None
