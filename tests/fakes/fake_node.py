"""The node API on loopback, over a node in memory. Every request is held to the contract."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import types
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import memory_node
from aiohttp import web

from couchestor_domain import errors
from couchestor_domain.node_api import assignment, contract, encoding_request, node_record
from couchestor_operator.ports import node_client


class Answer(NamedTuple):
    """What is sent in place of the truth."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = types.MappingProxyType({})
    after_seconds: float = 0.0


@dataclass(slots=True)
class FakeNode:
    """A server of one node."""

    node: memory_node.MemoryNode
    endpoint: node_client.Endpoint = field(
        default_factory=lambda: node_client.Endpoint(node="", url="")
    )
    token: str | None = None
    """Asked of every request, if there is one."""
    next_answers: list[Answer] = field(default_factory=list)
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    """Method, path and status of each request."""
    unspecified: list[str] = field(default_factory=list)
    """Requests that the contract does not have."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Any request to any path."""
        body = await request.read()
        if self.next_answers:
            made = self.next_answers.pop(0)
            await asyncio.sleep(made.after_seconds)
            answer = web.Response(status=made.status, body=made.body, headers=made.headers)
        else:
            answer = self._answer(request, body)
        self.asked.append((request.method, request.path_qs, answer.status))
        return answer

    def _answer(self, request: web.Request, body: bytes) -> web.Response:
        try:
            self._check(request)
            return self._done(request, body)
        except memory_node.Refused as exc:
            complaint = exc.complaint
        except errors.NodeRecordError as exc:
            self.unspecified.append(f"{request.method} {request.path_qs}: {exc}")
            complaint = contract.Complaint(refusal=contract.Refusal.MALFORMED, message=exc.message)
        return web.Response(
            status=contract.STATUS_OF[complaint.refusal],
            body=contract.encode_complaint(complaint),
            content_type=contract.CONTENT_TYPE,
        )

    def _check(self, request: web.Request) -> None:
        if request.headers.get(contract.NODE_HEADER) != self.node.name:
            raise memory_node.Refused(contract.Refusal.WRONG_NODE, f"this is {self.node.name}")
        secret = None if self.token is None else f"Bearer {self.token}"
        if secret is not None and request.headers.get("Authorization") != secret:
            raise memory_node.Refused(contract.Refusal.UNAUTHORIZED, "no such token")
        if request.method == "PUT" and request.content_type != contract.CONTENT_TYPE:
            raise errors.NodeRecordError(f"a body of {request.content_type}")

    def _done(self, request: web.Request, body: bytes) -> web.Response:
        path, name = request.path, ""
        for folder in (contract.GROUPS_PATH, contract.ENCODINGS_PATH):
            if path.startswith(f"{folder}/"):
                path, name = folder, path.removeprefix(f"{folder}/")
        query = dict(request.query)
        match request.method, path:
            case "GET", contract.STATE_PATH if not query:
                return self._state(request)
            case "GET", contract.SHARDS_PATH if list(query) == ["since", "begun"]:
                page = self.node.page(int(query["since"]), begun=int(query["begun"]))
                return _json(200, node_record.encode_page(page))
            case "PUT", contract.GROUPS_PATH if not query:
                wanted = assignment.decode(body)
                _same(name, wanted.stripe)
                return web.Response(status=201 if self.node.assign(wanted) else 200)
            case "DELETE", contract.GROUPS_PATH if list(query) == ["generation"]:
                self.node.release(name, generation=int(query["generation"]))
                return web.Response(status=204)
            case "PUT", contract.ENCODINGS_PATH if not query:
                asked = encoding_request.decode(body)
                _same(name, asked.volume)
                state, is_new = self.node.encode(asked)
                return _json(201 if is_new else 200, encoding_request.encode_state(state))
            case "GET", contract.ENCODINGS_PATH if not query:
                state = self.node.encoding(name)
                return _json(200, encoding_request.encode_state(state))
        raise errors.NodeRecordError("no such request")

    def _state(self, request: web.Request) -> web.Response:
        record = self.node.state()
        etag = contract.etag_of(record.revision)
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers={"ETag": etag})
        answer = _json(200, node_record.encode(record))
        answer.headers["ETag"] = etag
        return answer


@contextlib.asynccontextmanager
async def served(
    node: memory_node.MemoryNode,
    *,
    tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[FakeNode]:
    """A server until the end of the block, which says what was not of the API.

    Args:
        port: 0: a free one.
    """
    server = FakeNode(node)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
        scheme = "http" if tls is None else "https"
        server.endpoint = node_client.Endpoint(
            node=node.name, url=f"{scheme}://{host}:{runner.addresses[0][1]}"
        )
        yield server
        assert not server.unspecified
    finally:
        await runner.cleanup()
        await asyncio.sleep(0)


def _json(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type=contract.CONTENT_TYPE)


def _same(in_path: str, in_body: str) -> None:
    if in_path != in_body:
        raise errors.NodeRecordError(f"the path names {in_path} and the body {in_body}")
