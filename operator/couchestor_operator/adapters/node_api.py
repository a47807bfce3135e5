"""Calls of the node API over HTTP, and refusals as our errors. Nothing is repeated in here."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

import aiohttp

from couchestor_domain import errors
from couchestor_domain.node_api import assignment, contract, encoding_request, node_record
from couchestor_operator.adapters import bounded_body, http_session, node_access
from couchestor_operator.ports import node_client

CONNECTIONS_COUNT: Final = 32
KNOWN_NODES_COUNT_MAX: Final = 4096
_SHOWN_LENGTH_MAX: Final = 300


class _Answer(NamedTuple):
    status: int
    etag: str
    body: bytearray


class _Known(NamedTuple):
    etag: str
    record: node_record.NodeRecord


class NodeApi:
    """Implements ``ports.node_client.NodeClient``.

    Use ``opened``, which closes its connections at the end. The last state of each node is kept, so
    that one that has not changed is not sent again.
    """

    def __init__(self, access: node_access.Access, session: http_session.HttpSession) -> None:
        self._access = access
        self._session = session
        self._known: dict[node_client.Endpoint, _Known] = {}

    async def state(self, endpoint: node_client.Endpoint) -> node_record.NodeRecord:
        """See the port."""
        known = self._known.pop(endpoint, None)
        headers = {} if known is None else {"If-None-Match": known.etag}
        answer = await self._call(endpoint, "GET", contract.STATE_PATH, headers=headers)
        if answer.status == 304 and known is not None:
            self._known[endpoint] = known
            return known.record
        with _Foreign(endpoint, answer, expected=(200,)):
            record = node_record.decode(answer.body)
        self._check_node(endpoint, record.node)
        if answer.etag == contract.etag_of(record.revision):
            self._known[endpoint] = _Known(answer.etag, record)
            if len(self._known) > KNOWN_NODES_COUNT_MAX:
                del self._known[next(iter(self._known))]
        return record

    async def shards(
        self, endpoint: node_client.Endpoint, *, since: int, begun: int
    ) -> node_record.ShardPage:
        """See the port."""
        answer = await self._call(endpoint, "GET", contract.shards_path(since, begun=begun))
        with _Foreign(endpoint, answer, expected=(200,)):
            page = node_record.decode_page(answer.body)
        self._check_node(endpoint, page.node)
        if page.revision < since or any(shard.revision <= since for shard in page.shards):
            raise errors.NodeApiError(
                f"{_where(endpoint)} answered shards from before revision {since}: look at its log"
            )
        return page

    async def assign(self, endpoint: node_client.Endpoint, wanted: assignment.Assignment) -> None:
        """See the port."""
        path = contract.group_path(wanted.stripe)
        answer = await self._call(endpoint, "PUT", path, body=assignment.encode(wanted))
        with _Foreign(endpoint, answer, expected=(200, 201)):
            pass

    async def release(
        self, endpoint: node_client.Endpoint, stripe: str, *, generation: int
    ) -> None:
        """See the port."""
        path = contract.release_path(stripe, generation=generation)
        answer = await self._call(endpoint, "DELETE", path)
        with _Foreign(endpoint, answer, expected=(204,)):
            pass

    async def encode(
        self, endpoint: node_client.Endpoint, request: encoding_request.EncodingRequest
    ) -> encoding_request.EncodingState:
        """See the port."""
        path = contract.encoding_path(request.volume)
        body = encoding_request.encode(request)
        answer = await self._call(endpoint, "PUT", path, body=body)
        with _Foreign(endpoint, answer, expected=(200, 201)):
            return _about(endpoint, request.volume, encoding_request.decode_state(answer.body))

    async def encoding(
        self, endpoint: node_client.Endpoint, volume: str
    ) -> encoding_request.EncodingState | None:
        """See the port."""
        answer = await self._call(endpoint, "GET", contract.encoding_path(volume))
        if answer.status == 404 and _complaint(answer) is not None:
            return None
        with _Foreign(endpoint, answer, expected=(200,)):
            return _about(endpoint, volume, encoding_request.decode_state(answer.body))

    def _check_node(self, endpoint: node_client.Endpoint, node: str) -> None:
        if node != endpoint.node:
            raise errors.NodeApiError(
                f"{_where(endpoint)} says that it is {node}: nothing of it is believed"
            )

    async def _call(
        self,
        endpoint: node_client.Endpoint,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> _Answer:
        try:
            async with asyncio.timeout(self._access.deadline_seconds):
                return await self._send(endpoint, method, path, headers or {}, body)
        except TimeoutError as exc:
            raise errors.NodeUnreachableError(
                f"{_where(endpoint)} did not answer within {self._access.deadline_seconds:g} s: "
                "look at its load and at the network"
            ) from exc
        except (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError) as exc:
            # Somebody answers: that is no sign of a node that is lost.
            raise errors.NodeApiError(
                f"{_where(endpoint)} shows a certificate that is not trusted: give the CA file "
                f"that signed it, and let it be for the node's name ({_plain(str(exc))})"
            ) from exc
        except (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError, OSError) as exc:
            raise errors.NodeUnreachableError(
                f"{_where(endpoint)} cannot be reached: {type(exc).__name__}: {_plain(str(exc))}"
            ) from exc
        except aiohttp.ClientError as exc:
            raise errors.NodeApiError(
                f"{_where(endpoint)} answered something that is no answer: {type(exc).__name__}: "
                f"{_plain(str(exc))}"
            ) from exc

    async def _send(
        self,
        endpoint: node_client.Endpoint,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes | None,
    ) -> _Answer:
        sent = {
            "Accept": contract.CONTENT_TYPE,
            "Accept-Encoding": "gzip",
            contract.NODE_HEADER: endpoint.node,
            **headers,
        }
        if body is not None:
            sent["Content-Type"] = contract.CONTENT_TYPE
        secret = await self._session.authorization(self._access)
        if secret is not None:
            sent["Authorization"] = secret
        async with self._session.client.request(
            method,
            endpoint.url.rstrip("/") + path,
            headers=sent,
            data=body,
            allow_redirects=False,
            server_hostname=endpoint.node if self._access.is_encrypted else None,
        ) as response:
            succeeded = response.status < 300
            read = await bounded_body.read(
                response,
                self._access.answer_bytes_max if succeeded else contract.COMPLAINT_BYTES_MAX,
                where=_where(endpoint),
                unfit=errors.NodeApiError,
            )
            return _Answer(response.status, response.headers.get("ETag", ""), read)


@contextlib.asynccontextmanager
async def opened(access: node_access.Access) -> AsyncIterator[NodeApi]:
    """Nodes to ask, until the end of the block.

    Raises:
        ConfigurationError: a certificate file cannot be used.
    """
    async with http_session.opened(access, connections_count=CONNECTIONS_COUNT) as session:
        yield NodeApi(access, session)


class _Foreign:
    """Turns an answer that is not expected, or cannot be read, into our errors."""

    def __init__(
        self, endpoint: node_client.Endpoint, answer: _Answer, *, expected: tuple[int, ...]
    ) -> None:
        self._endpoint = endpoint
        self._answer = answer
        self._expected = expected

    def __enter__(self) -> None:
        if self._answer.status in self._expected:
            return
        complaint = _complaint(self._answer)
        where = _where(self._endpoint)
        if complaint is not None:
            raise node_client.error_of(complaint, where=where)
        hint = ": set the port that its node API is at"
        if 300 <= self._answer.status < 400:
            hint = ": it sends elsewhere, which is not followed; set the port of the API itself"
        raise errors.NodeApiError(
            f"{where} answered {self._answer.status}, and not as a node does{hint}",
            status=self._answer.status,
        )

    def __exit__(self, kind: object, raised: BaseException | None, trace: object) -> None:
        if isinstance(raised, errors.NodeRecordError):
            raise errors.NodeApiError(
                f"{_where(self._endpoint)} answered what cannot be used: {raised.message}"
            ) from raised


def _complaint(answer: _Answer) -> contract.Complaint | None:
    """What a node complains of; None: it is no complaint, or not with that status."""
    try:
        found = contract.decode_complaint(answer.body)
    except errors.NodeRecordError:
        return None
    return found if contract.STATUS_OF[found.refusal] == answer.status else None


def _about(
    endpoint: node_client.Endpoint, volume: str, state: encoding_request.EncodingState
) -> encoding_request.EncodingState:
    if state.volume != volume:
        raise errors.NodeApiError(
            f"{_where(endpoint)} was asked about volume {volume} and answered about another"
        )
    return state


def _where(endpoint: node_client.Endpoint) -> str:
    return f"node {endpoint.node} at {endpoint.url}"


def _plain(text: str) -> str:
    """Someone else's text, fit for one line of a log."""
    shown = "".join(char if char.isprintable() else " " for char in text[:_SHOWN_LENGTH_MAX])
    return " ".join(shown.split())
