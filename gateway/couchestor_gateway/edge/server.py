"""The gateway: one aiohttp low-level handler from socket to operation and back.

web.Server instead of web.Application: no router, no middleware, no resource matching per request.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
from collections.abc import Callable, Collection, Mapping
from concurrent import futures
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from aiohttp import web

from couchestor_domain import errors, units
from couchestor_gateway.edge import (
    addressing,
    answering,
    bucket_logs,
    connection,
    cross_origin,
    form_body,
    form_request,
    log_collector,
    presigned_headers,
    query_names,
    request_head,
    request_records,
    responses,
    routing,
)
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.operations import post_object
from couchestor_gateway.ports import caller_context as caller_port
from couchestor_gateway.ports import clock as clock_port
from couchestor_gateway.ports import credentials as credentials_port
from couchestor_gateway.ports import hashing, object_store, offloading
from couchestor_gateway.protocol import (
    operation_needs,
    s3_error,
    sigv2,
    sigv4,
    sigv4_signatures,
    unsupported_headers,
)

LOG: Final = logging.getLogger("couchestor.gateway")

_NO_QUERY: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Bounds on what clients can make the gateway hold or wait for."""

    requests_max: int = 1024
    """Requests in flight; beyond it 503 SlowDown."""
    body_bytes_max: int = 5 * units.GIB
    stall_seconds: float = 30.0
    """Longest wait for the next byte of a body, or for a client to take one."""
    keepalive_seconds: float = 75.0
    lingering_seconds: float = 2.0
    """How long an unread body is drained before its connection is closed."""
    hash_threads: int = 2
    read_buffer_bytes: int = 256 * units.KIB
    header_line_bytes_max: int = 16 * units.KIB
    headers_max: int = 512
    """Headers of one request: as many short ones as the 8 KiB hold that AWS takes."""
    backlog: int = 1024


class RunningServer:
    """A listening gateway."""

    def __init__(self, gateway: Gateway, runner: web.ServerRunner, site: web.TCPSite) -> None:
        self._gateway = gateway
        self._site = site
        self.runner = runner
        address = runner.addresses[0]
        self.host: str = address[0]
        self.port: int = address[1]

    async def stop(self, timeout: float) -> None:  # noqa: ASYNC109 - a drain bound, not a scope
        """Stop listening, let requests in flight end for ``timeout`` seconds, then close."""
        await self._site.stop()
        await self._gateway.drain(timeout)
        await self.runner.cleanup()


class Gateway:
    """S3 over HTTP for the given stores.

    Args:
        region: The one region requests must be signed for.
        domain: Base domain of virtual-hosted requests, or None for path-style only.
        signature_v2: Take requests signed by Signature Version 2, too.
        notification_targets: Names of the targets that buckets may send notices to.
        log_delivery_seconds: How long lines of buckets' logs are held before they are written.
        log_lines: Told what became of them.
        metrics: Told about every finished request.
        offload: Where long buffers are hashed; threads of its own when None.
        new_shared_md5: MD5 of long bodies, computed together; one by one when None.
        access_log: Log every request; else only those that failed through no fault of the client's:
            answered 5xx (but not 501) or broken off. A line costs as much as a sixth of a small
            GET.
    """

    def __init__(
        self,
        buckets: object_store.BucketStore,
        objects: object_store.ObjectStore,
        uploads: object_store.UploadStore,
        credentials: credentials_port.CredentialStore,
        *,
        region: str,
        clock: clock_port.Clock,
        domain: str | None = None,
        limits: ServerLimits | None = None,
        metrics: request_records.MetricsHook | None = None,
        offload: offloading.Offload | None = None,
        new_shared_md5: hashing.NewSharedMd5 | None = None,
        access_log: bool = True,
        signature_v2: bool = False,
        notification_targets: Collection[str] = (),
        log_delivery_seconds: float = log_collector.DELIVERY_SECONDS,
        log_lines: log_collector.CountHook | None = None,
    ) -> None:
        self._limits = limits or ServerLimits()
        self._buckets = buckets
        self._verifier = sigv4.Verifier(credentials, region, takes_version_2=signature_v2)
        self._signatures = sigv4_signatures.Signatures(credentials)
        self._region = region
        self._clock = clock
        self._domain = domain.lower() if domain else None
        self._host_id = secrets.token_hex(16)
        self._services = request_head.Services(
            host_id=self._host_id,
            notification_targets=frozenset(notification_targets),
            users=credentials,
            buckets=buckets,
            objects=objects,
            uploads=uploads,
            region=region,
            clock=clock,
            offload=offload or _own_threads(self._limits.hash_threads),
            new_shared_md5=new_shared_md5,
            stall_seconds=self._limits.stall_seconds,
            body_bytes_max=self._limits.body_bytes_max,
        )
        self._logs = log_collector.LogCollector(
            buckets,
            objects,
            region=region,
            clock=clock,
            offload=self._services.offload,
            on_count=log_lines,
            delivery_seconds=log_delivery_seconds,
        )
        self._logged = bucket_logs.BucketLogs(
            self._logs, buckets, clock=clock, host_id=self._host_id
        )
        self._records = request_records.Records(metrics, access_log=access_log)
        self._in_flight_count = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._request_number = int.from_bytes(secrets.token_bytes(8), "big")

    async def start(
        self,
        host: str,
        port: int,
        *,
        reuse_port: bool = False,
        ssl_context: ssl.SSLContext | None = None,
    ) -> RunningServer:
        """Listen. Raises OSError when the address cannot be bound."""
        limits = self._limits
        server = connection.Server(
            self.handle,
            stall_seconds=limits.stall_seconds,
            access_log=None,
            auto_decompress=False,  # objects are stored as they were sent
            keepalive_timeout=limits.keepalive_seconds,
            lingering_time=limits.lingering_seconds,
            read_bufsize=limits.read_buffer_bytes,
            max_line_size=limits.header_line_bytes_max,
            max_field_size=limits.header_line_bytes_max,
            max_headers=limits.headers_max,
            tcp_keepalive=True,
        )
        runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(
            runner,
            host,
            port,
            ssl_context=ssl_context,
            backlog=limits.backlog,
            reuse_port=reuse_port,
        )
        await site.start()
        self._logs.start()
        return RunningServer(self, runner, site)

    async def drain(self, timeout_seconds: float) -> None:
        """Close connections after their current request; wait for requests in flight, then write
        what is held of buckets' logs."""
        self._draining = True
        if self._in_flight_count:
            self._idle.clear()
            try:
                async with asyncio.timeout(timeout_seconds):
                    await self._idle.wait()
            except TimeoutError:
                LOG.warning("%d requests cut off by shutdown", self._in_flight_count)
        await self._logs.stop()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; never raises but for cancellation."""
        started_ns = self._clock.monotonic_ns()
        self._request_number = (self._request_number + 1) & 0xFFFFFFFFFFFFFFFF
        trace = request_records.Trace(f"{self._request_number:016X}")
        caller_port.REQUEST_ID.set(trace.request_id)
        self._in_flight_count += 1
        try:
            reply = await self._answer(request, trace)
            if "Origin" in request.headers:
                await self._let_in(request, reply)
            return await answering.send(
                request, reply, trace, host_id=self._host_id, is_draining=self._draining
            )
        finally:
            seconds = (self._clock.monotonic_ns() - started_ns) / units.NS_PER_SECOND
            self._records.add(request, trace, seconds)
            if bucket_logs.may_concern(trace):
                await self._logged.add(request, trace, seconds=seconds)
            self._in_flight_count -= 1
            if self._draining and self._in_flight_count == 0:
                self._idle.set()

    async def _answer(
        self, request: web.BaseRequest, trace: request_records.Trace
    ) -> responses.Reply:
        try:
            if self._in_flight_count > self._limits.requests_max:
                raise s3_error.make("SlowDown")
            return await self._run(request, trace)
        except s3_error.S3Error as exc:
            error = exc
        except errors.CouchestorError as exc:
            error = s3_error.from_store(exc)
            if error.status >= 500:
                LOG.error("request %s failed: %s", trace.request_id, exc)
        except Exception:
            LOG.exception("request %s failed", trace.request_id)
            error = s3_error.make("InternalError")
        trace.error_code = error.code
        return responses.failure(
            error,
            resource=request.raw_path.partition("?")[0].encode("utf-8", "replace").decode(),
            request_id=trace.request_id,
            host_id=self._host_id,
            head=request.method == "HEAD",
        )

    async def _run(self, request: web.BaseRequest, trace: request_records.Trace) -> responses.Reply:
        headers: Mapping[str, str] = request.headers
        method = request.method
        target = addressing.resolve(request.raw_path, headers.get("Host", ""), self._domain)
        trace.target = target
        if method == "OPTIONS":
            trace.operation = cross_origin.PREFLIGHT
            return await cross_origin.preflight(headers, target, self._buckets)
        query = addressing.parse_query(target.raw_query) if target.raw_query else _NO_QUERY
        identity = self._verifier.verify(
            method=method,
            raw_path=target.raw_path,
            raw_query=target.raw_query,
            headers=headers,
            now_seconds=self._clock.now_ns() / units.NS_PER_SECOND,
            host_bucket=target.host_bucket,
        )
        amz_names = identity.amz_names
        if identity.credential is None:
            try:
                found = routing.find_unsigned(method, target.bucket, target.key, query, headers)
            except s3_error.S3Error:
                if target.bucket:
                    # As S3: that a bucket does not exist is told before who may use it.
                    await self._buckets.get_bucket(target.bucket)
                raise
            if found is None:
                return await self._post(request, target, query, trace)
            operation = found
        else:
            trace.access_key = identity.credential.access_key
            if identity.is_version_2:
                sigv2.require_covered(query_names.sub_resource(query))
                if "Signature" in query:
                    headers = presigned_headers.merged(headers, query, also=sigv2.MOVED_NAMES)
                    amz_names = [name.lower() for name in headers]
            elif "X-Amz-Signature" in query:
                headers = presigned_headers.merged(headers, query)
                amz_names = [name.lower() for name in headers]
            operation = routing.find(method, target.bucket, target.key, query, headers)
        trace.operation = operation.name
        context = s3_request.S3Request(
            request,
            target=target,
            headers=headers,
            amz_names=amz_names,
            query=query,
            identity=identity,
            services=self._services,
        )
        trace.reception = trace.head = context
        await context.authorize(operation.need)
        unsupported_headers.refuse(headers, amz_names)
        return await operation.run(context)

    async def _let_in(self, request: web.BaseRequest, reply: responses.Reply) -> None:
        """Let pages of other sites see the answer where the bucket's owner wants that."""
        headers = request.headers
        if request.method == "OPTIONS":
            return
        try:
            target = addressing.resolve(request.raw_path, headers.get("Host", ""), self._domain)
        except s3_error.S3Error:
            return
        await cross_origin.let_in(
            reply, method=request.method, headers=headers, target=target, buckets=self._buckets
        )

    async def _post(
        self,
        request: web.BaseRequest,
        target: addressing.Target,
        query: Mapping[str, str],
        trace: request_records.Trace,
    ) -> responses.Reply:
        """A form: its fields say who signed it, and what in place of headers."""
        trace.operation = post_object.NAME
        # Told before the form is read.
        await self._buckets.get_bucket(target.bucket)
        body = form_body.FormBody(
            request,
            file_bytes_max=self._limits.body_bytes_max,
            offload=self._services.offload,
            stall_seconds=self._limits.stall_seconds,
        )
        trace.reception = body
        form = await form_request.accept(
            body,
            target,
            signatures=self._signatures,
            region=self._region,
            now_ns=self._clock.now_ns(),
        )
        context = form_request.FormRequest(
            request,
            form,
            query=query,
            services=self._services,
        )
        trace.head = context
        trace.access_key = form.access_key
        await context.authorize(operation_needs.NEEDS[post_object.NAME])
        unsupported_headers.refuse(form.headers, form.headers)
        return await post_object.run(context)


def _own_threads(count: int) -> offloading.Offload:
    pool = futures.ThreadPoolExecutor(count, thread_name_prefix="body-hash")

    async def run(function: Callable[..., object], *arguments: object) -> object:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)

    return run
