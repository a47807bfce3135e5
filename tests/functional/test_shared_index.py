"""What one worker process acknowledged, every other worker shows at once."""

from __future__ import annotations

import http.client
import re
import typing

import pytest
from tests.functional import daemon_process

from couchestor_bench import server_process, signing

_WORKER_COUNT: typing.Final = 3
_CONNECTION_COUNT_MAX: typing.Final = 300


class _Worker:
    """One kept-alive connection, hence one worker process."""

    def __init__(self, server: server_process.ServerProcess) -> None:
        self._server = server
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        self.slot = ""
        self.call("HEAD", "")

    def call(
        self, method: str, key: str, *, query: str = "", body: bytes = b""
    ) -> tuple[int, bytes]:
        path = f"/{daemon_process.BUCKET}" + (f"/{key}" if key else "")
        pairs = dict(part.split("=") for part in query.split("&") if part)
        headers = signing.sign_headers(
            self._server.credentials, method, host=self._server.host, path=path, query=pairs
        )
        target = signing.encode_path(path) + (f"?{signing.encode_query(pairs)}" if pairs else "")
        self._connection.request(method, target, body=body or None, headers=headers)
        answer = self._connection.getresponse()
        content, slot = answer.read(), answer.headers.get("x-amz-id-2", "")
        assert self.slot in ("", slot), "the connection moved to another worker"
        self.slot = slot
        return answer.status, content

    def close(self) -> None:
        self._connection.close()


@pytest.mark.skipif(daemon_process.is_peer(), reason="the peer has a single process")
@pytest.mark.timeout(180)
def test_every_worker_shows_what_any_other_acknowledged(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("shared")
    options = {"workers": str(_WORKER_COUNT)}
    with daemon_process.running(folder / "node", options=options) as server:
        workers: dict[str, _Worker] = {}
        for _ in range(_CONNECTION_COUNT_MAX):
            worker = _Worker(server)
            if workers.setdefault(worker.slot, worker) is not worker:
                worker.close()
            if len(workers) == _WORKER_COUNT:
                break
        assert len(workers) == _WORKER_COUNT, f"only workers {sorted(workers)} were reached"
        for turn in range(20):
            for name, writer in workers.items():
                _write_and_look(writer, list(workers.values()), f"{turn % 3}-{name}", turn)
        for worker in workers.values():
            worker.close()


def _write_and_look(writer: _Worker, readers: list[_Worker], name: str, turn: int) -> None:
    key = "key-" + re.sub(r"\W", "", name)
    body = f"{name} at turn {turn}".encode() * (1 if turn % 2 else 20_000)
    status, content = writer.call("PUT", key, body=body)
    assert status == 200, content
    for reader in readers:
        assert reader.call("GET", key) == (200, body), "an older state was shown"
        assert reader.call("HEAD", key)[0] == 200
        listed = reader.call("GET", "", query=f"list-type=2&prefix={key}")[1]
        assert f"<Key>{key}</Key>".encode() in listed
        assert f"<Size>{len(body)}</Size>".encode() in listed
    status, content = readers[turn % len(readers)].call("DELETE", key)
    assert status == 204, content
    for reader in readers:
        assert reader.call("GET", key)[0] == 404, "a deleted object was shown"
        listed = reader.call("GET", "", query=f"list-type=2&prefix={key}")[1]
        assert key.encode() not in listed.partition(b"</Prefix>")[2]
