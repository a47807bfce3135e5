"""The bucket of a benchmark: made if it is not there, cleaned of what the benchmark put into it.

Only keys below the prefix of the run are deleted, and the bucket only if the run made it.
"""

from __future__ import annotations

import hashlib
import http.client
import ssl
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from couchestor_bench import failures, signing
from couchestor_bench.engine import signed_requests
from couchestor_bench.workload import plan as plans

_TIMEOUT_SECONDS: Final = 60.0
_BATCH_COUNT: Final = 1000
_ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024


class _Answer(NamedTuple):
    status: int
    body: bytes
    server: str


class Bucket:
    """Administers one bucket over one connection.

    Raises (every method): BenchmarkError when the server cannot be reached or refuses.
    """

    def __init__(self, plan: plans.Plan, tls: ssl.SSLContext | None) -> None:
        self._plan = plan
        endpoint = plan.endpoint
        self._connection: http.client.HTTPConnection = (
            http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=_TIMEOUT_SECONDS)
            if tls is None
            else http.client.HTTPSConnection(
                endpoint.host, endpoint.port, timeout=_TIMEOUT_SECONDS, context=tls
            )
        )
        self.is_own = False
        """Whether this run made it."""
        self.server = ""
        """What the server calls itself."""

    def make(self) -> None:
        """Create it, unless it is there."""
        # Not HEAD: its answer could not say why it refuses.
        found = self._ask("GET", query={"list-type": "2", "max-keys": "1"}, accepted=(200, 404))
        if found.status == 404:
            region = self._plan.credentials.region
            body = b""
            if region != "us-east-1" and ".amazonaws." in self._plan.endpoint.host:
                body = (
                    "<CreateBucketConfiguration><LocationConstraint>"
                    f"{region}</LocationConstraint></CreateBucketConfiguration>"
                ).encode()
            found = self._ask("PUT", body=body)
            self.is_own = True
        self.server = found.server

    def clean(self, progress: Callable[[int], None]) -> int:
        """Delete every object and upload below the prefix, then the bucket if it is our own.

        Args:
            progress: Told how many objects are deleted so far.

        Returns: How many objects were deleted.
        """
        deleted_count = 0
        last_first = ""
        while keys := self._texts(
            {"list-type": "2", "prefix": self._plan.prefix}, entry="Contents", fields=("Key",)
        ):
            if keys[0][0] == last_first:
                raise failures.BenchmarkError(
                    f"{last_first} in {self._plan.bucket} was deleted and is still listed; delete "
                    f"what is below {self._plan.prefix} by other means"
                )
            last_first = keys[0][0]
            self._delete([key for (key,) in keys])
            deleted_count += len(keys)
            progress(deleted_count)
        # Uploads that a request without an answer left: no more than there were connections.
        unfinished = self._texts(
            {"uploads": "", "prefix": self._plan.prefix},
            entry="Upload",
            fields=("Key", "UploadId"),
        )
        for key, upload_id in unfinished:
            self._ask("DELETE", key=key, query={"uploadId": upload_id}, accepted=(204, 404))
        if self.is_own:
            # Somebody else may have put something into it meanwhile: then it stays.
            self._ask("DELETE", accepted=(204, 404, 409))
        return deleted_count

    def close(self) -> None:
        """Give up the connection; idempotent."""
        self._connection.close()

    def _delete(self, keys: list[str]) -> None:
        for begin in range(0, len(keys), _BATCH_COUNT):
            root = ElementTree.Element("Delete")
            ElementTree.SubElement(root, "Quiet").text = "true"
            for key in keys[begin : begin + _BATCH_COUNT]:
                entry = ElementTree.SubElement(root, "Object")
                ElementTree.SubElement(entry, "Key").text = key
            body: bytes = ElementTree.tostring(root)
            answer = self._ask(
                "POST",
                query={"delete": ""},
                body=body,
                headers={"content-md5": signed_requests.content_md5(body)},
            )
            refused = _parsed(answer.body, "Error", ("Code", "Message"))
            if refused:
                code, message = refused[0]
                raise failures.BenchmarkError(
                    f"{len(refused)} objects below {self._plan.prefix} in {self._plan.bucket} "
                    f"cannot be deleted: {code}: {message}"
                )

    def _texts(
        self, query: Mapping[str, str], *, entry: str, fields: tuple[str, ...]
    ) -> list[list[str]]:
        return _parsed(self._ask("GET", query=query).body, entry, fields)

    def _ask(
        self,
        method: str,
        *,
        key: str = "",
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        accepted: tuple[int, ...] = (200, 204),
    ) -> _Answer:
        plan = self._plan
        path = f"/{plan.bucket}/{key}" if key else f"/{plan.bucket}"
        signed = signing.sign_headers(
            plan.credentials,
            method,
            host=plan.endpoint.host_header,
            path=path,
            query=query,
            headers=headers,
            payload_sha256=hashlib.sha256(body).hexdigest(),
        )
        target = signing.encode_path(path) + (f"?{signing.encode_query(query)}" if query else "")
        try:
            self._connection.request(method, target, body=body or None, headers=signed)
            with self._connection.getresponse() as response:
                answer = _Answer(
                    response.status,
                    response.read(_ANSWER_BYTES_MAX),
                    response.getheader("server", ""),
                )
        except (OSError, http.client.HTTPException) as exc:
            self._connection.close()
            raise failures.BenchmarkError(
                f"no answer from {plan.endpoint.url}: {exc or type(exc).__name__}; is the server "
                "running, and --endpoint its address?"
            ) from exc
        if answer.status not in accepted:
            raise failures.BenchmarkError(self._refusal(method, path, answer))
        return answer

    def _refusal(self, method: str, path: str, answer: _Answer) -> str:
        said = _parsed(answer.body, "", ("Code", "Message"))
        code, message = said[0] if said else (f"HTTP {answer.status}", "")
        text = f"{self._plan.endpoint.url} refuses {method} {path}: {code}"
        if message:
            text += f": {message}"
        if answer.status == 403:
            text += "; are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY those of this server?"
        return text


def _parsed(document: bytes, entry: str, fields: tuple[str, ...]) -> list[list[str]]:
    """Text of ``fields`` of each ``entry``, whatever the namespace; "" is the document itself."""
    try:
        root = ElementTree.fromstring(document) if document else ElementTree.Element("none")
    except ElementTree.ParseError:
        return []
    entries = root.iterfind(f"{{*}}{entry}") if entry else iter([root])
    found = ([each.findtext(f"{{*}}{name}") for name in fields] for each in entries)
    return [[text or "" for text in texts] for texts in found if any(texts)]
