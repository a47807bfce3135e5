"""Conditional writes from many clients at once, through every worker: exactly one wins."""

from __future__ import annotations

import collections
import threading
import typing
from collections.abc import Callable, Iterator
from concurrent import futures

import pytest
from tests.functional import hostile_client

CLIENTS_COUNT: typing.Final = 16
ROUNDS_COUNT: typing.Final = 8
LOST: typing.Final = ("PreconditionFailed", 412)


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hostile_client.Victim]:
    with hostile_client.attacked(tmp_path_factory.mktemp("races")) as victim:
        yield victim


class _Clients:
    """Connections to both workers, used by one thread each."""

    def __init__(self, victim: hostile_client.Victim) -> None:
        self._victim = victim
        self._start = threading.Barrier(CLIENTS_COUNT)
        self.connections: list[hostile_client.Connection] = []
        workers: collections.Counter[str] = collections.Counter()
        while len(self.connections) < CLIENTS_COUNT:
            connection = hostile_client.Connection(victim.server.port)
            connection.send(victim.request("HEAD"))
            worker = connection.answer("HEAD").headers["x-amz-id-2"]
            if workers[worker] < CLIENTS_COUNT // 2:
                workers[worker] += 1
                self.connections.append(connection)
            else:
                connection.close()
        assert len(workers) == 2, workers

    def race(self, make: Callable[[int], bytes]) -> list[hostile_client.Answer]:
        """Everyone sends its request at the same moment."""

        def run(number: int) -> hostile_client.Answer:
            content = make(number)
            self._start.wait()
            self.connections[number].send(content)
            return self.connections[number].answer()

        with futures.ThreadPoolExecutor(CLIENTS_COUNT) as pool:
            return list(pool.map(run, range(CLIENTS_COUNT)))

    def close(self) -> None:
        for connection in self.connections:
            connection.close()


@pytest.fixture
def clients(victim: hostile_client.Victim) -> Iterator[_Clients]:
    clients = _Clients(victim)
    yield clients
    clients.close()
    victim.assert_well()


def _body(number: int, size_bytes: int) -> bytes:
    return f"{number:04d}".encode() * (size_bytes // 4)


def _only_winner(answers: list[hostile_client.Answer]) -> int:
    won = [number for number, answer in enumerate(answers) if answer.status == 200]
    lost = [answer.outcome for answer in answers if answer.status != 200]
    assert len(won) == 1, f"clients {won} all won"
    assert lost == [LOST] * (CLIENTS_COUNT - 1)
    return won[0]


def _puts(
    victim: hostile_client.Victim, key: str, *, size_bytes: int, condition: dict[str, str]
) -> Callable[[int], bytes]:
    """Client number -> its signed PUT of a body of its own under a condition."""
    return lambda number: victim.request(
        "PUT", key, body=_body(number, size_bytes), headers=condition
    )


@pytest.mark.parametrize("size_bytes", [4096, 400_000])
def test_one_client_creates_a_key(
    victim: hostile_client.Victim, clients: _Clients, size_bytes: int
) -> None:
    for turn in range(ROUNDS_COUNT):
        key = f"new-{size_bytes}-{turn}"
        answers = clients.race(
            _puts(victim, key, size_bytes=size_bytes, condition={"if-none-match": "*"})
        )
        winner = _only_winner(answers)
        assert victim.stored(key) == _body(winner, size_bytes)


def test_one_client_replaces_a_version(victim: hostile_client.Victim, clients: _Clients) -> None:
    etag = victim.put("counter", b"start")
    for _ in range(ROUNDS_COUNT):
        answers = clients.race(
            _puts(victim, "counter", size_bytes=4096, condition={"if-match": etag})
        )
        winner = _only_winner(answers)
        assert victim.stored("counter") == _body(winner, 4096)
        # Another body next time, or its ETag would be this one's.
        etag = victim.put("counter", answers[winner].headers["x-amz-request-id"].encode())


@pytest.mark.parametrize("kind", ["header", "document"])
def test_a_delete_takes_the_version_it_names_or_nothing(
    victim: hostile_client.Victim, clients: _Clients, kind: str
) -> None:
    """Half of the clients replace what the others delete: what replaced it is never deleted."""
    key = f"doomed-{kind}"
    for turn in range(ROUNDS_COUNT):
        etag = victim.put(key, f"{turn}".encode())

        def make(number: int, etag: str = etag) -> bytes:
            if number % 2:
                return victim.request("PUT", key, body=_body(number, 4096))
            if kind == "header":
                return victim.request("DELETE", key, headers={"if-match": etag})
            item = f"<Delete><Object><Key>{key}</Key><ETag>{etag}</ETag></Object></Delete>"
            return victim.request("POST", body=item.encode(), query={"delete": ""})

        answers = clients.race(make)
        assert {answer.status for answer in answers[1::2]} == {200}
        for answer in answers[::2]:
            done = answer.status == 204 or b"<Deleted>" in answer.body
            assert done or b"PreconditionFailed" in answer.body
        assert len(victim.stored(key) or b"") == 4096


def test_one_client_completes_its_upload(victim: hostile_client.Victim, clients: _Clients) -> None:
    completions = []
    for number in range(CLIENTS_COUNT):
        started = victim.ask(victim.request("POST", "whole", query={"uploads": ""}), "POST")
        upload_id = started.body.partition(b"<UploadId>")[2].partition(b"<")[0].decode()
        part = victim.ask(
            victim.request(
                "PUT",
                "whole",
                body=_body(number, 4096),
                query={"uploadId": upload_id, "partNumber": "1"},
            )
        )
        document = (
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>"
            f"<ETag>{part.headers['etag']}</ETag></Part></CompleteMultipartUpload>"
        )
        completions.append(
            victim.request(
                "POST",
                "whole",
                body=document.encode(),
                query={"uploadId": upload_id},
                headers={"if-none-match": "*"},
            )
        )
    winner = _only_winner(clients.race(lambda number: completions[number]))
    assert victim.stored("whole") == _body(winner, 4096)
