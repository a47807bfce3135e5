"""A client that breaks rules, by bytes on a socket, and what must hold of the daemon afterwards."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import hmac
import socket
import typing
from collections.abc import Iterator, Mapping, Sequence

from botocore.exceptions import ClientError
from tests.functional import daemon_process

from couchestor_bench import server_process, signing

STALL_SECONDS: typing.Final = 1.0
SIGNED: typing.Final = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER: typing.Final = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER: typing.Final = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_EMPTY_SHA256: typing.Final = hashlib.sha256(b"").hexdigest()


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A response as it came; ``headers`` in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The S3 error code, or an empty text."""
        return self.body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode()

    @property
    def outcome(self) -> tuple[str, int]:
        """Error code and status."""
        return self.code, self.status


class Connection:
    """One TCP connection."""

    def __init__(self, port: int, *, timeout_seconds: float = 20.0) -> None:
        self._socket = socket.socket()
        # Small and fixed, so that what a client does not read soon shows at the server.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        self._socket.settimeout(timeout_seconds)
        self._socket.connect(("127.0.0.1", port))
        self._buffer = b""

    def send(self, content: bytes) -> None:
        """Send all of it."""
        self._socket.sendall(content)

    def answer(self, method: str = "GET") -> Answer:
        """The next response.

        Raises:
            ConnectionError: the server closed before its end.
        """
        head = self._until(b"\r\n\r\n").decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = 0 if method == "HEAD" else int(headers.get("content-length", "0"))
        while len(self._buffer) < length:
            self._more()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Answer(int(first.split()[1]), headers, body)

    def receive(self, limit_bytes: int) -> bytes:
        """What has come, at most so much; empty when the server has closed."""
        return self._socket.recv(limit_bytes)

    def is_closed(self) -> bool:
        """Whether the server closes without sending more."""
        try:
            return not self._buffer and self._socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        """Leave at once."""
        self._socket.close()

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(mark)
        return head

    def _more(self) -> None:
        piece = self._socket.recv(65536)
        if not piece:
            raise ConnectionError(f"closed after {self._buffer[:200]!r}")
        self._buffer += piece


class Victim:
    """The daemon under attack."""

    def __init__(self, server: server_process.ServerProcess) -> None:
        self.server = server
        self.s3 = daemon_process.boto_client(server, signature_version="s3v4")
        self.pids = sorted(process.pid for process in server.tree())

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """A fresh connection, closed at the end."""
        connection = Connection(self.server.port)
        try:
            yield connection
        finally:
            connection.close()

    def sign(
        self,
        method: str,
        key: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        payload_sha256: str = signing.UNSIGNED_PAYLOAD,
        now: datetime.datetime | None = None,
    ) -> dict[str, str]:
        """Signed headers for a key of the bucket; for the bucket itself without a key."""
        return signing.sign_headers(
            self.server.credentials,
            method,
            host=self.server.host,
            path=path_of(key),
            query=query,
            headers=headers,
            payload_sha256=payload_sha256,
            now=now,
        )

    def request(
        self,
        method: str,
        key: str = "",
        *,
        body: bytes = b"",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        payload_sha256: str = signing.UNSIGNED_PAYLOAD,
    ) -> bytes:
        """A well signed request as bytes, with its length."""
        signed = self.sign(method, key, query=query, headers=headers, payload_sha256=payload_sha256)
        signed["content-length"] = str(len(body))
        return head(method, target_of(key, query), signed) + body

    def ask(self, content: bytes, method: str = "GET") -> Answer:
        """Send on a connection of its own and take one answer."""
        with self.connection() as connection:
            connection.send(content)
            return connection.answer(method)

    def refused(self, content: bytes, *, survives: bool = True) -> tuple[str, int]:
        """The outcome of a request that is refused; then the connection still serves, or closes."""
        with self.connection() as connection:
            connection.send(content)
            answer = connection.answer()
            if survives:
                connection.send(self.request("HEAD"))
                assert connection.answer("HEAD").status == 200, "the connection is lost"
            else:
                assert connection.is_closed(), "the connection goes on after lost framing"
            return answer.outcome

    def stored(self, key: str) -> bytes | None:
        """The object, or None; HEAD and GET must agree."""
        try:
            told = self.s3.head_object(Bucket=daemon_process.BUCKET, Key=key)
        except ClientError as exc:
            response: typing.Any = exc.response
            assert response["ResponseMetadata"]["HTTPStatusCode"] == 404, response
            return None
        content: bytes = self.s3.get_object(Bucket=daemon_process.BUCKET, Key=key)["Body"].read()
        assert len(content) == told["ContentLength"]
        return content

    def put(self, key: str, content: bytes) -> str:
        """Store an object; its ETag."""
        told = self.s3.put_object(Bucket=daemon_process.BUCKET, Key=key, Body=content)
        return str(told["ETag"])

    def assert_well(self) -> None:
        """Every process lives, the node is ready and serves, and no bug was logged."""
        assert self.server.is_ready()
        assert sorted(process.pid for process in self.server.tree()) == self.pids
        self.put("pulse", b"beats")
        assert self.stored("pulse") == b"beats"
        log = self.server.log_path.read_text(errors="replace")
        assert "Traceback" not in log, log[-4000:]


@contextlib.contextmanager
def attacked(folder: typing.Any, *, options: Mapping[str, str] | None = None) -> Iterator[Victim]:
    """A daemon of two workers that gives stalled clients a second."""
    told = {"workers": "2", "stall-seconds": str(STALL_SECONDS), **(options or {})}
    with daemon_process.running(folder / "node", options=told) as server:
        yield Victim(server)


def path_of(key: str) -> str:
    """The path of a key of the bucket, not encoded."""
    return f"/{daemon_process.BUCKET}" + (f"/{key}" if key else "")


def target_of(key: str, query: Mapping[str, str] | None = None) -> str:
    """The same as a request's target."""
    target = signing.encode_path(path_of(key))
    return f"{target}?{signing.encode_query(query)}" if query else target


def head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """Request line and headers."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode()


class ChunkedUpload:
    """An aws-chunked body under construction, signed or not, right unless told otherwise.

    Args:
        payload: What ``x-amz-content-sha256`` says.
        decoded_bytes: What ``x-amz-decoded-content-length`` says.
        trailer: Name of the announced trailer.
    """

    def __init__(
        self,
        victim: Victim,
        key: str,
        *,
        payload: str,
        decoded_bytes: int,
        trailer: str = "",
    ) -> None:
        headers = {
            "content-encoding": "aws-chunked",
            "x-amz-decoded-content-length": str(decoded_bytes),
        }
        if trailer:
            headers["x-amz-trailer"] = trailer
        self._key = key
        self._headers = victim.sign("PUT", key, headers=headers, payload_sha256=payload)
        authorization = self._headers["authorization"]
        self._previous = authorization.rpartition("Signature=")[2]
        credentials = victim.server.credentials
        self._date = self._headers["x-amz-date"]
        self._scope = f"{self._date[:8]}/{credentials.region}/s3/aws4_request"
        self._signing_key = f"AWS4{credentials.secret_key}".encode()
        for step in self._scope.split("/"):
            self._signing_key = hmac.digest(self._signing_key, step.encode(), "sha256")
        self._is_signed = payload != UNSIGNED_TRAILER

    def chunk(self, content: bytes, *, signature: str | None = None) -> bytes:
        """One framed chunk."""
        extension = ""
        if self._is_signed:
            digest = hashlib.sha256(content).hexdigest()
            made = self._sign("AWS4-HMAC-SHA256-PAYLOAD", f"{_EMPTY_SHA256}\n{digest}")
            extension = f";chunk-signature={signature or made}"
        framed = f"{len(content):x}{extension}\r\n".encode()
        return framed + content + b"\r\n" if content else framed

    def trailers(self, lines: Sequence[tuple[str, str]], *, signature: str | None = None) -> bytes:
        """The trailers, signed where chunks are, and the end of the body."""
        text = "".join(f"{name}:{value}\r\n" for name, value in lines)
        if self._is_signed and lines:
            plain = "".join(f"{name}:{value}\n" for name, value in lines)
            digest = hashlib.sha256(plain.encode()).hexdigest()
            made = self._sign("AWS4-HMAC-SHA256-TRAILER", digest)
            text += f"x-amz-trailer-signature:{signature or made}\r\n"
        return text.encode() + b"\r\n"

    def request(self, body: bytes, *, announced_bytes: int | None = None) -> bytes:
        """The whole request with the body given."""
        length = len(body) if announced_bytes is None else announced_bytes
        headers = {**self._headers, "content-length": str(length)}
        return head("PUT", target_of(self._key), headers) + body

    def _sign(self, kind: str, rest: str) -> str:
        text = f"{kind}\n{self._date}\n{self._scope}\n{self._previous}\n{rest}"
        self._previous = hmac.digest(self._signing_key, text.encode(), "sha256").hex()
        return self._previous
