"""The operator's client of nodes against a real HTTP server that may answer anything."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import pathlib
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from typing import Any, Final

import fake_node
import node_client_contract
import pytest

from couchestor_domain import errors, units
from couchestor_domain.node_api import contract, encoding_request, node_record
from couchestor_operator.adapters import node_access, node_api
from couchestor_operator.ports import node_client

TOKEN: Final = "a-token-that-nobody-may-see"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A node and who asks it."""

    server: fake_node.FakeNode
    client: node_api.NodeApi

    async def state(self) -> node_record.NodeRecord:
        """Of the node."""
        return await self.client.state(self.server.endpoint)


@contextlib.asynccontextmanager
async def _asked(*answers: fake_node.Answer, **access: Any) -> AsyncIterator[Pair]:
    node = node_client_contract.made_node()
    made = node_access.Access(**{"url": "http://nodes:9443"} | access)
    async with fake_node.served(node) as server, node_api.opened(made) as client:
        server.next_answers = list(answers)
        yield Pair(server=server, client=client)


def _complaint(refusal: contract.Refusal, status: int | None = None) -> fake_node.Answer:
    complaint = contract.Complaint(refusal=refusal, message="because")
    status = contract.STATUS_OF[refusal] if status is None else status
    return fake_node.Answer(status, contract.encode_complaint(complaint))


async def test_a_state_that_has_not_changed_is_not_sent_again() -> None:
    async with _asked() as pair:
        first = await pair.state()
        assert await pair.state() is first
        pair.server.node.health = node_record.NodeHealth.READ_ONLY
        pair.server.node.revision += 1
        assert (await pair.state()).health is node_record.NodeHealth.READ_ONLY
        assert [status for _, _, status in pair.server.asked] == [200, 304, 200]


async def test_a_304_that_nobody_asked_for_is_no_answer() -> None:
    async with _asked(fake_node.Answer(304)) as pair:
        with pytest.raises(errors.NodeApiError, match="answered 304, and not as a node does"):
            await pair.state()


async def test_a_fault_forgets_what_was_known() -> None:
    async with _asked() as pair:
        await pair.state()
        pair.server.next_answers = [_complaint(contract.Refusal.BUSY)]
        with pytest.raises(errors.NodeApiError, match="Busy"):
            await pair.state()
        await pair.state()
        assert [status for _, _, status in pair.server.asked] == [200, 503, 200]


@pytest.mark.parametrize("refusal", contract.Refusal, ids=lambda refusal: refusal.value)
async def test_what_each_refusal_means(refusal: contract.Refusal) -> None:
    expected = {
        contract.Refusal.STALE_GENERATION: errors.VersionConflictError,
        contract.Refusal.SINCE_TOO_OLD: errors.VersionConflictError,
        contract.Refusal.MALFORMED: errors.AssignmentRefusedError,
        contract.Refusal.DIFFERENT_CONTENT: errors.AssignmentRefusedError,
        contract.Refusal.ZONE_TAKEN: errors.AssignmentRefusedError,
        contract.Refusal.HOLDS_DATA: errors.AssignmentRefusedError,
        contract.Refusal.NO_ROOM: errors.AssignmentRefusedError,
    }.get(refusal, errors.NodeApiError)
    async with _asked(_complaint(refusal)) as pair:
        wanted = node_client_contract.assignment_of(pair.server.node)
        with pytest.raises(errors.ControlPlaneError) as told:
            await pair.client.assign(pair.server.endpoint, wanted)
    assert type(told.value) is expected
    assert told.value.context["refusal"] is refusal
    assert "node storage-1 at http://127.0.0.1" in str(told.value)
    assert "because" in str(told.value)


GOOD: Final = node_record.encode(node_client_contract.made_node().state())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (fake_node.Answer(200, b"<html>"), "answered what cannot be used: NodeRecord is no JSON"),
        (fake_node.Answer(200, GOOD[:-1]), "NodeRecord is no JSON"),
        (fake_node.Answer(200, GOOD.replace(b'"version":1', b'"version":2')), "of one release"),
        (
            fake_node.Answer(200, GOOD.replace(b"storage-1", b"storage-2")),
            "says that it is storage-2: nothing of it is believed",
        ),
        (fake_node.Answer(200, b"x" * (units.MIB + 1)), "answered more than 1048576 bytes"),
        (
            fake_node.Answer(
                200, gzip.compress(bytes(8 * units.MIB)), {"Content-Encoding": "gzip"}
            ),
            "answered more than 1048576 bytes",
        ),
        (fake_node.Answer(200, GOOD, {"Content-Encoding": "br"}), "compresses its answer"),
        (fake_node.Answer(302, b"", {"Location": "http://elsewhere"}), "which is not followed"),
        (fake_node.Answer(404, b"not found"), "set the port that its node API is at"),
        (fake_node.Answer(500, b"x" * (units.MIB + 1)), "answered more than 65536 bytes"),
        (_complaint(contract.Refusal.BUSY, 409), "answered 409, and not as a node does"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
async def test_what_is_no_answer_of_a_node_is_said_and_never_believed(
    answer: fake_node.Answer, said: str
) -> None:
    async with _asked(answer, answer_bytes_max=units.MIB) as pair:
        with pytest.raises(errors.NodeApiError) as told:
            await pair.state()
        assert said in told.value.message
        # The next one is asked for as if nothing had been.
        assert await pair.state() == pair.server.node.state()


async def test_shards_from_before_what_was_asked_for_are_not_believed() -> None:
    page = node_record.ShardPage(node="storage-1", shards=(), revision=4, more=False)
    answer = fake_node.Answer(200, node_record.encode_page(page))
    async with _asked(answer) as pair:
        with pytest.raises(errors.NodeApiError, match="from before revision 5"):
            await pair.client.shards(pair.server.endpoint, since=5, begun=5)


async def test_an_answer_about_another_volume_is_not_believed() -> None:
    state = encoding_request.EncodingState(
        volume="pvc-2",
        generation=1,
        phase=encoding_request.EncodingPhase.ENCODED,
        encoded_bytes=1,
        reason="",
    )
    answer = fake_node.Answer(200, encoding_request.encode_state(state))
    async with _asked(answer) as pair:
        with pytest.raises(errors.NodeApiError, match="answered about another"):
            await pair.client.encoding(pair.server.endpoint, "pvc-1")


async def test_a_404_of_a_proxy_makes_no_volume_be_unheard_of() -> None:
    async with _asked(fake_node.Answer(404, b"{}")) as pair:
        with pytest.raises(errors.NodeApiError):
            await pair.client.encoding(pair.server.endpoint, "pvc-1")


async def test_a_node_that_takes_too_long_or_is_not_there_is_unreachable_and_no_error_is(
    unused_tcp_port: int,
) -> None:
    slow = fake_node.Answer(200, GOOD, after_seconds=30.0)
    async with _asked(slow, deadline_seconds=0.2) as pair:
        with pytest.raises(errors.NodeUnreachableError, match=r"did not answer within 0\.2 s"):
            await pair.state()
        nowhere = node_client.Endpoint(node="storage-1", url=f"http://127.0.0.1:{unused_tcp_port}")
        with pytest.raises(errors.NodeUnreachableError, match="cannot be reached"):
            await pair.client.state(nowhere)
    assert not issubclass(errors.NodeApiError, errors.NodeUnreachableError)


async def test_a_connection_that_is_closed_is_unreachable_and_what_is_no_http_is_not() -> None:
    said = b""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    endpoint = node_client.Endpoint(node="storage-1", url=f"http://127.0.0.1:{port}")
    async with server, node_api.opened(node_access.Access(url="http://nodes:1")) as client:
        with pytest.raises(errors.NodeUnreachableError):
            await client.state(endpoint)
        said = b"SSH-2.0-OpenSSH_9\r\n\r\n"
        with pytest.raises(errors.NodeApiError, match="no answer"):
            await client.state(endpoint)
        said = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"
        with pytest.raises(errors.NodeApiError, match="no answer"):
            await client.state(endpoint)


async def test_another_node_at_the_address_does_nothing() -> None:
    async with _asked() as pair:
        other = dataclasses.replace(pair.server.endpoint, node="storage-9")
        wanted = node_client_contract.assignment_of(pair.server.node)
        with pytest.raises(errors.NodeApiError, match=r"WrongNode.*this is storage-1"):
            await pair.client.assign(other, wanted)
        assert pair.server.node.shards == {}


async def test_a_token_is_read_for_each_call_sent_and_never_shown(tmp_path: pathlib.Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(f"{TOKEN}\n")
    async with _asked(bearer_token_file=token_file) as pair:
        pair.server.token = TOKEN
        await pair.state()
        token_file.write_text("another-token")
        with pytest.raises(errors.NodeApiError, match="Unauthorized") as told:
            await pair.state()
        assert "another-token" not in str(told.value)
        token_file.unlink()
        with pytest.raises(errors.NodeApiError, match="cannot be used"):
            await pair.state()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "ftp://nodes"}, "the node API URL is not one"),
        ({"url": "http://nodes", "ca_file": pathlib.Path("/nowhere")}, "its URL says http"),
    ],
)
def test_settings_that_cannot_be_are_told_of_the_node_api(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(errors.ConfigurationError, match=words):
        node_access.Access(**settings)


def _certificate(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A self-signed certificate for the node's name, and its key."""
    cert, key = folder / "node.crt", folder / "node.key"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    words += ["-nodes", "-days", "2", "-subj", "/CN=node"]
    words += ["-addext", "subjectAltName=DNS:storage-1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(words, check=True, capture_output=True)
    return cert, key


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
async def test_over_tls_a_node_shows_a_certificate_for_its_name(tmp_path: pathlib.Path) -> None:
    cert, key = _certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert, key)
    node = node_client_contract.made_node()
    async with fake_node.served(node, tls=tls) as server:
        async with node_api.opened(node_access.Access(url="https://nodes", ca_file=cert)) as client:
            assert await client.state(server.endpoint) == node.state()
            other = dataclasses.replace(server.endpoint, node="storage-2")
            with pytest.raises(errors.NodeApiError, match=r"not trusted.*for the node's name"):
                await client.state(other)
        async with node_api.opened(node_access.Access(url="https://nodes")) as stranger:
            with pytest.raises(errors.NodeApiError, match="give the CA file"):
                await stranger.state(server.endpoint)
