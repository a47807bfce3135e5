"""Concurrent S3 writers whose every operation an oracle knows, and the check after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import random
import time
import urllib.parse
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
import yarl
from tests.crash import oracle

from couchestor_bench import signing

_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
_SIZES: Final = (0, 1, 4 * _KIB, 100 * _KIB, 300 * _KIB, _MIB, 9 * _MIB)
_WEIGHTS: Final = (4, 4, 40, 20, 15, 5, 1)
_PART_BYTES: Final = 5 * _MIB
VERSION_HEADER: Final = "x-amz-meta-issue"
"""Carries the version an object was issued as."""
_LIST_PAGE_KEYS: Final = 97
_OPERATION_SECONDS_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def etag(self) -> str:
        return self.headers.get("etag", "").strip('"')


class LostReplyError(Exception):
    """No complete answer came, so the outcome is open."""


class Client:
    """A signing S3 client of one bucket over kept-alive connections."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        endpoint: str,
        credentials: signing.Credentials,
        bucket: str,
    ) -> None:
        self._session, self._endpoint = session, endpoint
        self._host = endpoint.removeprefix("http://")
        self._credentials, self._bucket = credentials, bucket

    async def call(
        self,
        method: str,
        key: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Reply:
        """Send one signed request.

        Raises:
            LostReplyError: The connection broke or the deadline passed before the answer was whole.
        """
        path = f"/{self._bucket}/{key}" if key else f"/{self._bucket}"
        signed = signing.sign_headers(
            self._credentials,
            method,
            host=self._host,
            path=path,
            query=query,
            headers=headers,
            payload_sha256=hashlib.sha256(body).hexdigest(),
        )
        target = self._endpoint + signing.encode_path(path)
        if query:
            target += "?" + signing.encode_query(query)
        try:
            async with self._session.request(
                method,
                yarl.URL(target, encoded=True),
                headers=signed,
                data=io.BytesIO(body) if body else None or None,
            ) as answer:
                content = await answer.read()
                found = {name.lower(): value for name, value in answer.headers.items()}
                return Reply(answer.status, found, content)
        except (TimeoutError, aiohttp.ClientError, ConnectionError) as exc:
            raise LostReplyError(repr(exc)) from exc

    async def look(self, key: str, *, method: str = "GET") -> oracle.Sighting | None:
        """The object as GET or HEAD shows it, None when absent."""
        reply = await self.call(method, key)
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise LostReplyError(f"{method} {key}: {reply.status} {reply.body[:300]!r}")
        return oracle.Sighting(
            version=int(reply.headers.get(VERSION_HEADER, "-1")),
            etag=reply.etag,
            size_bytes=int(reply.headers.get("content-length", "-1")),
            body=reply.body if method == "GET" else None,
        )

    async def listing(self) -> list[tuple[str, oracle.Sighting]]:
        """Every key of the bucket, through as many pages as it takes."""
        rows: list[tuple[str, oracle.Sighting]] = []
        query = {"list-type": "2", "max-keys": str(_LIST_PAGE_KEYS), "encoding-type": "url"}
        while True:
            reply = await self.call("GET", query=query)
            assert reply.status == 200, f"LIST: {reply.status} {reply.body[:300]!r}"
            page = ElementTree.fromstring(reply.body)
            for row in page.iterfind("{*}Contents"):
                size = int(row.findtext("{*}Size", "-1"))
                etag = row.findtext("{*}ETag", "").strip('"')
                key = urllib.parse.unquote_plus(row.findtext("{*}Key", ""))
                rows.append((key, oracle.Sighting(version=-1, etag=etag, size_bytes=size)))
            token = page.findtext("{*}NextContinuationToken")
            if page.findtext("{*}IsTruncated") != "true" or not token:
                return rows
            query = {**query, "continuation-token": token}


@contextlib.asynccontextmanager
async def connect(
    endpoint: str, *, credentials: signing.Credentials, bucket: str
) -> AsyncIterator[Client]:
    """A client that opens as many connections as its callers keep busy."""
    limit = aiohttp.TCPConnector(limit=0)
    deadline = aiohttp.ClientTimeout(total=_OPERATION_SECONDS_MAX)
    async with aiohttp.ClientSession(connector=limit, timeout=deadline) as session:
        yield Client(session, endpoint=endpoint, credentials=credentials, bucket=bucket)


class Writers:
    """Clients that write until told to stop or until the server is gone.

    Args:
        judge: Learns of every operation.
        seed: Chooses keys, sizes and kinds.
        client_count: Each has its own range of keys; all share some conditional ones.
        keys_per_client: Fewer keys, more overwrites.
    """

    def __init__(
        self,
        judge: oracle.Oracle,
        *,
        seed: int,
        client_count: int = 16,
        keys_per_client: int = 24,
        round_index: int = 0,
    ) -> None:
        self._judge, self._seed = judge, seed
        self._client_count, self._keys_per_client = client_count, keys_per_client
        self._round_index = round_index
        self.errors: dict[str, int] = {}

    async def run(self, client: Client, stop: asyncio.Event) -> None:
        """Write until ``stop`` is set; a lost connection ends a client's work."""
        async with asyncio.TaskGroup() as group:
            for index in range(self._client_count):
                group.create_task(self._one(client, index, stop))

    async def _one(self, client: Client, index: int, stop: asyncio.Event) -> None:
        dice = random.Random(f"{self._seed}:{self._round_index}:{index}")
        lost_count = 0
        while not stop.is_set() and lost_count < 3:
            # A few keys with characters that addressing and listing like to get wrong.
            number = dice.randrange(self._keys_per_client)
            key = f"own/{index:02d}/{number:03d}" + (" +é&%/x" if number % 8 == 0 else "")
            kind = dice.random()
            try:
                if kind < 0.12:
                    await self._delete(client, key)
                elif kind < 0.24:
                    await self._read(client, key)
                elif kind < 0.32:
                    shared = f"shared/{self._round_index:04d}/{dice.randrange(200):04d}"
                    await self._write_once(client, shared, dice)
                elif kind < 0.33:
                    await self._multipart(client, key, dice)
                else:
                    await self._put(client, key, dice)
                lost_count = 0
            except LostReplyError as exc:
                lost_count += 1
                name = str(exc)[:80]
                self.errors[name] = self.errors.get(name, 0) + 1

    async def _put(self, client: Client, key: str, dice: random.Random) -> None:
        operation = self._issue(key, _size(dice))
        reply = await client.call(
            "PUT", key, headers=_version_header(operation), body=operation.body()
        )
        self._conclude(operation, reply)

    async def _write_once(self, client: Client, key: str, dice: random.Random) -> None:
        if dice.random() < 0.3:
            await self._read(client, key)
            return
        operation = self._issue(key, dice.choice((1, 4 * _KIB, 100 * _KIB)))
        headers = {**_version_header(operation), "if-none-match": "*"}
        reply = await client.call("PUT", key, headers=headers, body=operation.body())
        if reply.status == 412:
            self._judge.refuse(operation, exists=True)
            return
        self._conclude(operation, reply)
        self._judge.conditional_success(operation)

    async def _multipart(self, client: Client, key: str, dice: random.Random) -> None:
        sizes = (*([_PART_BYTES] * dice.choice((1, 2))), dice.choice((1, 300 * _KIB, _MIB)))
        operation = self._issue(key, sum(sizes), part_sizes=sizes)
        # Until the completion is sent the object cannot appear: any failure so far refuses it.
        try:
            upload, document = await self._upload_parts(client, operation)
        except LostReplyError:
            self._judge.refuse(operation)
            raise
        reply = await client.call("POST", key, query={"uploadId": upload}, body=document)
        # A completion may fail inside a 200, as S3 does when it began to answer early.
        if reply.status == 200 and b"CompleteMultipartUploadResult" not in reply.body:
            raise LostReplyError(f"completion: {reply.body[:120]!r}")
        self._conclude(operation, reply, etag=_xml_etag(reply.body))

    async def _upload_parts(self, client: Client, operation: oracle.Operation) -> tuple[str, bytes]:
        begun = await client.call(
            "POST", operation.key, query={"uploads": ""}, headers=_version_header(operation)
        )
        if begun.status != 200:
            raise LostReplyError(f"create upload: {begun.status} {begun.body[:120]!r}")
        upload = ElementTree.fromstring(begun.body).findtext("{*}UploadId", "")
        body, offset, rows = memoryview(operation.body()), 0, ""
        for number, size in enumerate(operation.part_sizes, start=1):
            part = bytes(body[offset : offset + size])
            offset += size
            query = {"partNumber": str(number), "uploadId": upload}
            reply = await client.call("PUT", operation.key, query=query, body=part)
            if reply.status != 200:
                raise LostReplyError(f"part: {reply.status} {reply.body[:120]!r}")
            rows += f'<Part><PartNumber>{number}</PartNumber><ETag>"{reply.etag}"</ETag></Part>'
        document = f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>"
        return upload, document.encode()

    async def _delete(self, client: Client, key: str) -> None:
        operation = self._judge.issue(key, started=time.monotonic(), delete=True)
        self._conclude(operation, await client.call("DELETE", key))

    async def _read(self, client: Client, key: str) -> None:
        started = time.monotonic()
        sighting = await client.look(key)
        self._judge.observe(key, sighting, started=started, ended=time.monotonic())

    def _issue(
        self, key: str, size_bytes: int, *, part_sizes: tuple[int, ...] = ()
    ) -> oracle.Operation:
        return self._judge.issue(
            key, started=time.monotonic(), size_bytes=size_bytes, part_sizes=part_sizes
        )

    def _conclude(self, operation: oracle.Operation, reply: Reply, *, etag: str = "") -> None:
        if reply.status in (200, 204):
            found = etag or reply.etag
            self._judge.acknowledge(operation, ended=time.monotonic(), etag=found)
        elif reply.status >= 500 and reply.status != 503:
            raise LostReplyError(f"{reply.status} {reply.body[:120]!r}")
        else:
            # 503 SlowDown is a promise that nothing was done, as any 4xx is.
            self._judge.refuse(operation)
            raise LostReplyError(f"refused: {reply.status} {reply.body[:120]!r}")


async def check_all(client: Client, judge: oracle.Oracle, *, parallel: int = 8) -> None:
    """Settle every key by GET, then demand that HEAD and LIST agree."""
    waiting = iter(judge.keys())

    async def work() -> None:
        for key in waiting:
            try:
                judge.settle(key, await client.look(key))
                judge.compare(key, await client.look(key, method="HEAD"), source="HEAD")
            except LostReplyError as exc:
                judge.unreadable(key, str(exc))

    async with asyncio.TaskGroup() as group:
        for _ in range(parallel):
            group.create_task(work())
    judge.compare_listing(await client.listing())


def _size(dice: random.Random) -> int:
    return dice.choices(_SIZES, _WEIGHTS)[0]


def _version_header(operation: oracle.Operation) -> dict[str, str]:
    return {VERSION_HEADER: str(operation.version), "content-type": "application/octet-stream"}


def _xml_etag(document: bytes) -> str:
    if not document.startswith(b"<"):
        return ""
    return ElementTree.fromstring(document).findtext("{*}ETag", "").strip('"')
