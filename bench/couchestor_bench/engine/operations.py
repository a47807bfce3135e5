"""Operations as exchanges of requests and answers; nothing here knows of sockets."""

from __future__ import annotations

import html
from typing import Protocol

from couchestor_bench.engine import http_answers, signed_requests
from couchestor_bench.workload import choices


class Operation(Protocol):
    """Something that is measured as a whole, of one request or several."""

    choice: choices.Choice
    request: signed_requests.Request
    """To be sent now."""
    step: str
    """What reports call this request; empty when it is the whole operation."""
    failure: str
    """Error code once it has failed."""
    size_bytes: int
    """User bytes that it moved, once it has ended well."""

    def advance(self, answer: http_answers.Answer) -> bool:
        """Take the answer. Returns whether there is another ``request``."""
        ...


class Single:
    """One request."""

    __slots__ = ("choice", "failure", "request", "size_bytes", "step")

    def __init__(
        self, choice: choices.Choice, request: signed_requests.Request, size_bytes: int
    ) -> None:
        self.choice, self.request, self.size_bytes = choice, request, size_bytes
        self.step = self.failure = ""

    def advance(self, answer: http_answers.Answer) -> bool:
        if not 200 <= answer.status < 300:
            self.failure = http_answers.failure_of(answer)
        elif self.request.expected_bytes not in (-1, answer.body_bytes):
            self.failure = "WrongLength"
        elif self.choice.operation == "list":
            self.size_bytes = answer.body_bytes
        return False


class Upload:
    """An object in parts, one after the other: begin, parts, complete; abort if one fails."""

    def __init__(
        self, choice: choices.Choice, requests: signed_requests.SignedRequests, *, part_bytes: int
    ) -> None:
        self.choice, self._requests = choice, requests
        self.size_bytes = requests.size_of(choice.key_index)
        self._parts_count = max(1, -(-self.size_bytes // part_bytes))
        self._etags: list[bytes] = []
        self._upload_id = ""
        self.failure = ""
        self.step = "multipart begin"
        self.request = requests.begin_upload(choice.key_index)

    def advance(self, answer: http_answers.Answer) -> bool:
        if self.failure:
            # The answer to giving it up.
            return False
        self.failure = http_answers.failure_of(answer)
        if not self.failure and self.step == "multipart complete":
            return False
        if not self.failure and self.step == "multipart begin":
            self._upload_id = _between(answer.kept, b"<UploadId>", b"</UploadId>")
            self.failure = "" if self._upload_id else "NoUploadId"
        elif not self.failure:
            etag = http_answers.head_value(answer.head, b"etag")
            self.failure = "" if etag else "NoETag"
            self._etags.append(etag)
        return self._follow()

    def _follow(self) -> bool:
        key_index = self.choice.key_index
        if self.failure:
            if not self._upload_id:
                return False
            self.step = "multipart abort"
            self.request = self._requests.abort_upload(key_index, self._upload_id)
        elif len(self._etags) < self._parts_count:
            self.step = "multipart part"
            number = len(self._etags) + 1
            self.request = self._requests.part(key_index, self._upload_id, number)
        else:
            self.step = "multipart complete"
            self.request = self._requests.complete_upload(key_index, self._upload_id, self._etags)
        return True


def _between(data: bytes, begin: bytes, end: bytes) -> str:
    _, found, rest = data.partition(begin)
    return html.unescape(rest.partition(end)[0].decode()) if found else ""
