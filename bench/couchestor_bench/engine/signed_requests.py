"""Requests ready to be sent: head signed, body at hand.

Those that depend on a key alone are signed before the clock runs: signing takes as long as all else
that the generator does for a small request.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from couchestor_bench import signing
from couchestor_bench.workload import plan as plans

SIGNED_BEFOREHAND_COUNT_MAX: Final = 100_000
_FRESH_SECONDS: Final = 600.0
"""S3 takes a signature for fifteen minutes."""


class Request(NamedTuple):
    """What goes over the wire, and what is expected back."""

    head: bytes
    body: memoryview | None = None
    headless: bool = False
    keeps_body: bool = False
    expected_bytes: int = -1
    """Length of the answer's body; -1: any."""


class SignedRequests:
    """Makes and keeps the requests of one process.

    Every body is the beginning of the same incompressible bytes.

    Args:
        fills: Objects are put also where the mix of ``plan`` has none to put.
    """

    def __init__(self, plan: plans.Plan, *, fills: bool) -> None:
        self._plan = plan
        self._sizes = plan.sizes_of_keys()
        self._kept: dict[tuple[str, int], tuple[float, Request]] = {}
        self._hashes: dict[int, str] = {0: signing.EMPTY_SHA256}
        uploads = plan.mix.get("multipart", 0) > 0
        largest = plan.part_bytes if uploads else int(self._sizes.max(initial=0))
        self._body = memoryview(b"")
        if fills or plan.mix.get("put", 0) or uploads:
            self._body = memoryview(np.random.default_rng(plan.seed).bytes(largest))
            sizes = (
                {largest, *(int(size) % plan.part_bytes for size in self._sizes)}
                if uploads
                else set(self._sizes.tolist())
            )
            self._hash(sizes)

    def size_of(self, key_index: int) -> int:
        """Bytes of the object of a key."""
        return int(self._sizes[key_index])

    def sign_beforehand(self, operations: Sequence[str], key_indexes: range, now: float) -> None:
        """Sign for as many keys as are kept; others are signed when they are asked for."""
        for operation in operations:
            for key_index in key_indexes:
                if len(self._kept) >= SIGNED_BEFOREHAND_COUNT_MAX:
                    return
                made = self._make(operation, key_index)
                self._kept[(operation, key_index)] = (now, made)

    def request(self, operation: str, key_index: int, now: float) -> Request:
        """The request of an operation on a key; ``now`` in seconds of any one clock."""
        kept = self._kept.get((operation, key_index))
        if kept is not None and now - kept[0] < _FRESH_SECONDS:
            return kept[1]
        made = self._make(operation, key_index)
        if kept is not None:
            self._kept[(operation, key_index)] = (now, made)
        return made

    def begin_upload(self, key_index: int) -> Request:
        """Its answer holds the upload's id."""
        head = self._head("POST", self._path(key_index), query={"uploads": ""})
        return Request(head, keeps_body=True)

    def part(self, key_index: int, upload_id: str, number: int) -> Request:
        """Part ``number``, from 1 on, of an upload."""
        begin = (number - 1) * self._plan.part_bytes
        size = min(self._plan.part_bytes, self.size_of(key_index) - begin)
        query = {"partNumber": str(number), "uploadId": upload_id}
        return Request(
            self._head("PUT", self._path(key_index), query=query, body_bytes=size),
            self._body[:size],
        )

    def complete_upload(self, key_index: int, upload_id: str, etags: Sequence[bytes]) -> Request:
        """Makes the object of its parts."""
        parts = b"".join(
            b"<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>" % (number, etag)
            for number, etag in enumerate(etags, 1)
        )
        body = b"<CompleteMultipartUpload>%s</CompleteMultipartUpload>" % parts
        digest = hashlib.sha256(body).hexdigest()
        head = self._head(
            "POST",
            self._path(key_index),
            query={"uploadId": upload_id},
            body_bytes=len(body),
            digest=digest,
        )
        return Request(head, memoryview(body), keeps_body=True)

    def abort_upload(self, key_index: int, upload_id: str) -> Request:
        """Gives up an upload that failed."""
        return Request(self._head("DELETE", self._path(key_index), query={"uploadId": upload_id}))

    def _make(self, operation: str, key_index: int) -> Request:
        plan, path = self._plan, self._path(key_index)
        if operation == "get":
            return Request(self._head("GET", path), expected_bytes=self.size_of(key_index))
        if operation == "head":
            return Request(self._head("HEAD", path), headless=True)
        if operation == "delete":
            return Request(self._head("DELETE", path))
        if operation == "put":
            size = self.size_of(key_index)
            return Request(self._head("PUT", path, body_bytes=size), self._body[:size])
        assert operation == "list", operation
        query = {
            "list-type": "2",
            "max-keys": str(plan.page_keys_count),
            "prefix": plan.prefix,
            "start-after": plan.key(key_index),
        }
        return Request(self._head("GET", f"/{plan.bucket}", query=query))

    def _path(self, key_index: int) -> str:
        return f"/{self._plan.bucket}/{self._plan.key(key_index)}"

    def _head(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body_bytes: int | None = None,
        digest: str = "",
    ) -> bytes:
        if not digest:
            digest = (
                self._hashes[body_bytes or 0]
                if self._plan.signed_payload or not body_bytes
                else signing.UNSIGNED_PAYLOAD
            )
        headers = signing.sign_headers(
            self._plan.credentials,
            method,
            host=self._plan.endpoint.host_header,
            path=path,
            query=query,
            payload_sha256=digest,
        )
        if body_bytes is not None or method == "POST":
            headers["content-length"] = str(body_bytes or 0)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        target = signing.encode_path(path) + (f"?{signing.encode_query(query)}" if query else "")
        return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode()

    def _hash(self, sizes: set[int]) -> None:
        """Of every beginning of the body that is sent, in one pass over it."""
        digest, done = hashlib.sha256(), 0
        for size in sorted(sizes):
            digest.update(self._body[done:size])
            done = size
            self._hashes[size] = digest.copy().hexdigest()


def content_md5(body: bytes) -> str:
    """As the header of that name has it."""
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
