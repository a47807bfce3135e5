"""Logs of buckets: where they go, what their lines say, and how they are collected."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Callable
from typing import Any

import gateway_harness
import hypothesis
import memory_store
import pytest
from hypothesis import strategies as st

from couchestor_domain import access, errors, objects, units
from couchestor_gateway.edge import log_collector, routing
from couchestor_gateway.protocol import access_log_line, logging_status, s3_error
from couchestor_gateway.protocol.logging_status import KeyFormat

_USERS = gateway_harness.Credentials()
_GRANT = access.Grant(access.Permission.READ, "owner-bob")


def _document(inside: str) -> bytes:
    namespace = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    return f"<BucketLoggingStatus {namespace}>{inside}</BucketLoggingStatus>".encode()


def _enabled(more: str = "", *, target: str = "logs", prefix: str = "p/") -> bytes:
    return _document(
        f"<LoggingEnabled><TargetBucket>{target}</TargetBucket>"
        f"<TargetPrefix>{prefix}</TargetPrefix>{more}</LoggingEnabled>"
    )


@pytest.mark.parametrize("key_format", KeyFormat)
@pytest.mark.parametrize("grants", [(), (_GRANT,)])
def test_a_status_is_told_as_it_was_put(key_format: KeyFormat, grants: access.Acl) -> None:
    status = logging_status.Logging(
        bucket="logs", prefix="a & b/", key_format=key_format, grants=grants
    )
    document = logging_status.write(status, users=_USERS)
    for users in (_USERS, None):
        assert logging_status.parse(document, users=users) == status
    assert logging_status.parse(logging_status.write(None), users=_USERS) is None
    if grants:
        assert b"<DisplayName>bob</DisplayName>" in document


def _format(inside: str) -> bytes:
    return _enabled(f"<TargetObjectKeyFormat>{inside}</TargetObjectKeyFormat>")


@pytest.mark.parametrize(
    "document",
    [
        b"",
        _document("<Other/>"),
        _document("<LoggingEnabled/>"),
        _document("<LoggingEnabled><TargetBucket>b</TargetBucket></LoggingEnabled>"),
        _enabled(target=""),
        _enabled("<LoggingType>Journal</LoggingType>"),
        _enabled("<TargetPrefix>twice</TargetPrefix>"),
        _enabled(prefix="p" * 1000),
        _format(""),
        _format("<SimplePrefix/><SimplePrefix/>"),
        _format(
            "<PartitionedPrefix><PartitionDateSource>x</PartitionDateSource></PartitionedPrefix>"
        ),
        _enabled(
            "<TargetGrants><Grant><Grantee><ID>owner-bob</ID></Grantee>"
            "<Permission>READ_ACP</Permission></Grant></TargetGrants>"
        ),
    ],
)
def test_what_no_status_can_say(document: bytes) -> None:
    with pytest.raises(s3_error.S3Error) as failure:
        logging_status.parse(document, users=_USERS)
    assert failure.value.code == "MalformedXML"


def test_grants_name_whom_the_node_knows() -> None:
    document = logging_status.write(
        logging_status.Logging(
            bucket="logs", prefix="", grants=(_GRANT._replace(user_id="nobody"),)
        )
    )
    with pytest.raises(s3_error.S3Error, match="Invalid id"):
        logging_status.parse(document, users=_USERS)


@pytest.mark.parametrize(
    ("key_format", "key"),
    [
        (KeyFormat.SIMPLE, "p/2026-11-29-00-00-05-F00D"),
        (KeyFormat.DELIVERY_TIME, "p/ada/r/src/2026/11/29/2026-11-29-00-00-05-F00D"),
        (KeyFormat.EVENT_TIME, "p/ada/r/src/2026/11/28/2026-11-28-00-00-00-F00D"),
    ],
)
def test_keys_of_log_objects(key_format: KeyFormat, key: str) -> None:
    status = logging_status.Logging(bucket="logs", prefix="p/", key_format=key_format)
    now_ns = 1_795_910_405 * units.NS_PER_SECOND
    assert key == logging_status.log_key(
        status,
        source_owner="ada",
        source_bucket="src",
        region="r",
        event_ns=now_ns - 10 * units.NS_PER_SECOND,
        now_ns=now_ns,
        unique="F00D",
    )


# -- lines ---------------------------------------------------------------------------------------


def _served(**more: Any) -> access_log_line.Served:
    fields: dict[str, Any] = {
        "bucket_owner": "ada",
        "bucket": "src",
        "time_ns": 1_549_411_238 * units.NS_PER_SECOND,
        "remote_ip": "192.0.2.3",
        "requester": "ada",
        "request_id": "3E57427F3EXAMPLE",
        "operation": "GetBucketVersioning",
        "method": "GET",
        "key": "",
        "target": "/src?versioning",
        "http_version": "HTTP/1.1",
        "status": 200,
        "error_code": "",
        "sent_bytes": 113,
        "object_bytes": None,
        "total_ms": 7,
        "referer": "",
        "user_agent": "S3Console/0.4",
        "version_id": "",
        "host_id": "s9lz",
        "signature": "SigV4",
        "cipher": "ECDHE-RSA-AES128-GCM-SHA256",
        "auth_type": "AuthHeader",
        "host": "src.s3.example.com",
        "tls_version": "TLSv1.2",
        **more,
    }
    return access_log_line.Served(**fields)


def _fields(line: bytes) -> list[str]:
    """As scripts read a line: the time in brackets, texts in quotes."""
    text = line.decode("ascii")
    assert text.count("\n") == 1
    return shlex.split(text.replace("[", '"').replace("]", '"'), posix=True)


def test_a_line_is_that_of_the_guide() -> None:
    assert access_log_line.write(_served()) == (
        b"ada src [06/Feb/2019:00:00:38 +0000] 192.0.2.3 ada 3E57427F3EXAMPLE"
        b' REST.GET.VERSIONING - "GET /src?versioning HTTP/1.1" 200 - 113 - 7 - "-"'
        b' "S3Console/0.4" - s9lz SigV4 ECDHE-RSA-AES128-GCM-SHA256 AuthHeader'
        b" src.s3.example.com TLSv1.2 - -\n"
    )


def test_a_line_names_what_failed_and_how_much_moved() -> None:
    line = access_log_line.write(
        _served(
            requester="",
            operation="GetObject",
            key="a b/ü",
            status=404,
            error_code="NoSuchKey",
            sent_bytes=0,
            object_bytes=9,
            version_id="v1",
        )
    )
    fields = _fields(line)
    assert fields[4] == "-"
    assert fields[6:8] == ["REST.GET.OBJECT", "a%20b/%C3%BC"]
    assert fields[9:13] == ["404", "NoSuchKey", "-", "9"]
    assert fields[17] == "v1"


@hypothesis.given(
    st.text(max_size=9), st.text(max_size=9), st.text(max_size=9), st.text(max_size=9)
)
def test_nothing_that_a_client_sends_makes_another_field_or_line(
    key: str, target: str, agent: str, host: str
) -> None:
    line = access_log_line.write(
        _served(key=key, target=f"/{target}", user_agent=agent, referer=agent, host=host)
    )
    text = re.sub(r'"[^"]*"', '"q"', line.decode("ascii"))
    text = re.sub(r"\[\d\d/[^]]*\]", "time", text)
    assert text.count("\n") == 1
    assert len(text.split(" ")) == 26


def test_signatures_stay_out_of_logs() -> None:
    query = "X-Amz-Signature=abc&x=1&X-Amz-Security-Token=def&Signature=ghi%3D&AWSAccessKeyId=A"
    target = f"/b/k?{query}"
    text = access_log_line.write(_served(target=target)).decode()
    assert not [secret for secret in ("abc", "def", "ghi") if secret in text]
    assert "X-Amz-Signature=-&x=1&X-Amz-Security-Token=-&Signature=-&AWSAccessKeyId=A" in text


@pytest.mark.parametrize("name", sorted(each.name for each in routing.served()))
def test_every_operation_has_a_name_in_logs(name: str) -> None:
    assert b"UNKNOWN" not in access_log_line.write(_served(operation=name))


# -- collection ----------------------------------------------------------------------------------


class Stage:
    """A collector over stores in memory."""

    def __init__(self, **options: Any) -> None:
        self.store = memory_store.MemoryStore()
        self.counts: list[tuple[str, int]] = []
        self.counted = asyncio.Event()

        async def offload(function: Callable[..., object], *arguments: object) -> object:
            return function(*arguments)

        self.collector = log_collector.LogCollector(
            self.store,
            self.store,
            region="r",
            clock=gateway_harness.RealClock(),
            offload=offload,
            on_count=self.count,
            **options,
        )
        self.where = logging_status.Logging(bucket="logs", prefix="p/")
        self.source = objects.BucketRecord(name="src", owner="ada", created_ns=0, region="r")

    async def open(self, owner: str = "ada") -> Stage:
        await self.store.create_bucket(name="logs", owner=owner, region="r")
        return self

    def count(self, outcome: str, count: int) -> None:
        self.counts.append((outcome, count))
        self.counted.set()

    def add(self, line: bytes, where: logging_status.Logging | None = None) -> None:
        self.collector.add(self.source, where or self.where, line, time_ns=0)

    async def written(self) -> list[bytes]:
        page = await self.store.list_objects(objects.ListQuery(bucket="logs"))
        found: list[bytes] = []
        for record in page.objects:
            pieces = self.store.stream(record, start_bytes=0, length_bytes=record.size_bytes)
            found.append(b"".join([bytes(piece) async for piece in pieces]))
        return found


async def test_lines_are_written_as_objects_of_the_targets_owner() -> None:
    stage = await Stage().open()
    stage.add(b"one\n")
    stage.add(b"two\n")
    stage.add(b"three\n", logging_status.Logging(bucket="logs", prefix="q/", grants=(_GRANT,)))
    await stage.collector.flush()
    assert await stage.written() == [b"one\ntwo\n", b"three\n"]
    page = await stage.store.list_objects(objects.ListQuery(bucket="logs"))
    plain, granted = page.objects
    assert plain.key.startswith("p/20")
    assert (plain.owner, plain.acl, plain.headers["content-type"]) == ("ada", None, "text/plain")
    assert granted.acl is not None
    assert _GRANT in granted.acl
    await stage.collector.flush()
    assert stage.counts == [("written", 2), ("written", 1)]


async def test_time_and_size_write_what_is_held() -> None:
    stage = await Stage(delivery_seconds=0.01).open()
    stage.collector.start()
    stage.add(b"early\n")
    async with asyncio.timeout(5):
        await stage.counted.wait()
    await stage.collector.stop()
    stage = await Stage(delivery_seconds=3600.0).open()
    stage.collector.start()
    stage.add(b"x" * log_collector.OBJECT_BYTES)
    stage.add(b"held\n", logging_status.Logging(bucket="logs", prefix="q/"))
    async with asyncio.timeout(5):
        await stage.counted.wait()
    assert [len(content) for content in await stage.written()] == [log_collector.OBJECT_BYTES]
    await stage.collector.stop()
    assert (await stage.written())[1:] == [b"held\n"]


async def test_what_finds_no_room_or_no_bucket_is_dropped_and_counted() -> None:
    stage = await Stage(held_bytes_max=8).open(owner="bob")
    stage.add(b"12345678")
    stage.add(b"9")
    assert stage.counts == [("dropped", 1)]
    # The target is another owner's by now, or gone.
    await stage.collector.flush()
    await stage.store.delete_bucket(name="logs")
    stage.add(b"1234")
    await stage.collector.flush()
    assert stage.counts == [("dropped", 1)] * 3


async def test_what_the_store_cannot_take_now_is_written_later() -> None:
    stage = await Stage(held_bytes_max=9).open()
    stage.store.fail_next = errors.StoreReadOnlyError("too few devices")
    stage.add(b"one\n")
    await stage.collector.flush()
    stage.add(b"two\n")
    stage.add(b"three\n")
    assert stage.counts == [("dropped", 1)]
    await stage.collector.flush()
    assert await stage.written() == [b"one\ntwo\n"]
    stage.store.fail_next = errors.StoreReadOnlyError("too few devices")
    stage.add(b"last\n")
    await stage.collector.stop()
    assert stage.counts[-1] == ("dropped", 1)
