"""Objects through boto3 against the gateway over the in-memory store."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import aiohttp
import gateway_harness
import pytest
import yarl
from aiohttp import web
from botocore.exceptions import ClientError, IncompleteReadError, ResponseStreamingError
from gateway_harness import call

from couchestor_domain import errors, objects
from couchestor_gateway.edge import announcements, bucket_logs, cross_origin, responses, server
from couchestor_gateway.ports import caller_context
from couchestor_gateway.protocol import notification_rules


def code_of(failure: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    response: Any = failure.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


async def test_put_get_head_delete_keep_headers_and_metadata() -> None:
    async with gateway_harness.running() as harness:
        s3 = harness.client()
        await call(s3.create_bucket, Bucket="books")
        await call(s3.create_bucket, Bucket="books")
        put = await call(
            s3.put_object,
            Bucket="books",
            Key="a/ü +%.txt",
            Body=b"hello",
            ContentType="text/plain",
            ContentEncoding="gzip",
            CacheControl="no-cache",
            Metadata={"Colour": "blue", "empty": ""},
            ChecksumAlgorithm="SHA256",
        )
        assert put["ETag"] == f'"{hashlib.md5(b"hello").hexdigest()}"'
        got = await call(s3.get_object, Bucket="books", Key="a/ü +%.txt", ChecksumMode="ENABLED")
        assert await call(got["Body"].read) == b"hello"
        assert got["ContentType"] == "text/plain"
        assert got["ContentEncoding"] == "gzip"
        assert got["CacheControl"] == "no-cache"
        assert got["Metadata"] == {"colour": "blue", "empty": ""}
        assert got["ChecksumSHA256"] == put["ChecksumSHA256"]
        head = await call(s3.head_object, Bucket="books", Key="a/ü +%.txt")
        assert head["ContentLength"] == 5
        assert "ChecksumSHA256" not in head
        await call(s3.delete_object, Bucket="books", Key="a/ü +%.txt")
        with pytest.raises(ClientError) as failure:
            await call(s3.get_object, Bucket="books", Key="a/ü +%.txt")
        assert code_of(failure) == ("NoSuchKey", 404)
        assert ("PutObject", 200) in [entry[:2] for entry in harness.seen]


async def test_a_write_that_outlived_its_bucket_has_succeeded() -> None:
    async with gateway_harness.running() as harness:
        s3 = harness.client()
        await call(s3.create_bucket, Bucket="books")
        rule = {"ID": "r", "Status": "Enabled", "Filter": {}, "Expiration": {"Days": 1}}
        await call(
            s3.put_bucket_lifecycle_configuration,
            Bucket="books",
            LifecycleConfiguration={"Rules": [rule]},
        )
        put = await call(s3.put_object, Bucket="books", Key="k", Body=b"x")
        assert 'rule-id="r"' in put["Expiration"]

        async def gone(bucket: str) -> None:
            raise errors.NoSuchBucketError(f"no bucket {bucket}")

        harness.store.get_lifecycle = gone  # type: ignore[method-assign]
        put = await call(s3.put_object, Bucket="books", Key="k", Body=b"x")
        assert "Expiration" not in put


async def test_304_renews_what_a_cache_holds() -> None:
    async with gateway_harness.running() as harness:
        s3 = harness.client()
        key = {"Bucket": "books", "Key": "k"}
        await call(s3.create_bucket, Bucket="books")
        etag = (
            await call(
                s3.put_object,
                **key,
                CacheControl="max-age=60",
                Expires="Wed, 21 Oct 2026 07:28:00 GMT",
                ContentLanguage="de",
            )
        )["ETag"]
        for overrides, control in (({}, "max-age=60"), ({"ResponseCacheControl": "a"}, "a")):
            with pytest.raises(ClientError) as failure:
                await call(s3.get_object, **key, IfNoneMatch=etag, **overrides)
            told: Any = failure.value.response["ResponseMetadata"]
            headers = told["HTTPHeaders"]
            assert (told["HTTPStatusCode"], headers["etag"]) == (304, etag)
            assert headers["cache-control"] == control
            assert headers["expires"] == "Wed, 21 Oct 2026 07:28:00 GMT"
            assert "content-language" not in headers


async def test_many_short_headers_of_metadata() -> None:
    async with gateway_harness.running() as harness:
        s3 = harness.client()
        await call(s3.create_bucket, Bucket="books")
        metadata = {f"n{number}": "v" for number in range(400)}
        await call(s3.put_object, Bucket="books", Key="k", Body=b"", Metadata=metadata)
        # Not asked of boto3: Python's client takes at most 100 headers of an answer.
        assert (await harness.store.get_object(bucket="books", key="k")).metadata == metadata
        metadata = {f"n{number}": "" for number in range(520)}
        with pytest.raises(ClientError) as failure:
            await call(s3.put_object, Bucket="books", Key="k", Body=b"", Metadata=metadata)
        assert code_of(failure) == ("RequestHeaderSectionTooLarge", 400)


async def test_a_file_name_beyond_ascii_stays_readable() -> None:
    async with gateway_harness.running() as harness:
        s3 = harness.client()
        key = {"Bucket": "books", "Key": "k"}
        await call(s3.create_bucket, Bucket="books")
        stored, asked = 'attachment; filename="Ärger.txt"', 'inline; filename="日本.txt"'
        to_put = s3.generate_presigned_url("put_object", Params=key)
        to_get = s3.generate_presigned_url("get_object", Params=key)
        overriding = s3.generate_presigned_url(
            "get_object", Params={**key, "ResponseContentDisposition": asked}
        )
        async with aiohttp.ClientSession() as session:
            headers = {"Content-Disposition": stored}
            async with session.put(to_put, data=b"x", headers=headers) as answer:
                assert answer.status == 200
            for url, wanted in ((to_get, stored), (overriding, asked)):
                async with session.get(yarl.URL(url, encoded=True)) as answer:
                    assert (answer.status, await answer.read()) == (200, b"x")
                    assert answer.headers["Content-Disposition"] == wanted


async def test_ranges_conditions_and_overrides() -> None:
    async with gateway_harness.running() as harness:
        s3 = harness.client()
        await call(s3.create_bucket, Bucket="books")
        etag = (await call(s3.put_object, Bucket="books", Key="k", Body=b"0123456789"))["ETag"]
        part = await call(s3.get_object, Bucket="books", Key="k", Range="bytes=2-4")
        assert (await call(part["Body"].read), part["ContentRange"]) == (b"234", "bytes 2-4/10")
        s3.meta.events.register(
            "before-sign.s3.GetObject",
            lambda request, **_: request.headers.add_header("If-Range", '"another"'),
            unique_id="if-range",
        )
        whole = await call(s3.get_object, Bucket="books", Key="k", Range="bytes=20-")
        assert (await call(whole["Body"].read), "ContentRange" in whole) == (b"0123456789", False)
        s3.meta.events.unregister("before-sign.s3.GetObject", unique_id="if-range")
        with pytest.raises(ClientError) as failure:
            await call(s3.get_object, Bucket="books", Key="k", Range="bytes=10-")
        assert code_of(failure) == ("InvalidRange", 416)
        with pytest.raises(ClientError) as failure:
            await call(s3.get_object, Bucket="books", Key="k", IfNoneMatch=etag)
        assert code_of(failure)[1] == 304
        told = failure.value.response["ResponseMetadata"]["HTTPHeaders"]
        assert told["etag"] == etag
        assert told["last-modified"].endswith("GMT")
        with pytest.raises(ClientError) as failure:
            await call(s3.get_object, Bucket="books", Key="k", IfMatch='"other"')
        assert code_of(failure) == ("PreconditionFailed", 412)
        with pytest.raises(ClientError) as failure:
            await call(s3.put_object, Bucket="books", Key="k", Body=b"x", IfNoneMatch="*")
        assert code_of(failure) == ("PreconditionFailed", 412)
        got = await call(
            s3.get_object, Bucket="books", Key="k", ResponseContentType="x/y", PartNumber=1
        )
        assert got["ContentType"] == "x/y"
        # To its end: the connection of a body that nobody reads is nobody's to close.
        assert await call(got["Body"].read) == b"0123456789"


async def test_large_bodies_stream_whole_and_break_off_instead_of_padding() -> None:
    async with gateway_harness.running() as harness:
        s3 = harness.client(read_timeout=5)
        await call(s3.create_bucket, Bucket="books")
        content = bytes(range(256)) * 12_345
        await call(s3.put_object, Bucket="books", Key="big", Body=content)
        got = await call(s3.get_object, Bucket="books", Key="big")
        assert await call(got["Body"].read) == content
        harness.store.fail_stream_after_bytes = 600_000
        got = await call(s3.get_object, Bucket="books", Key="big")
        with pytest.raises((IncompleteReadError, ResponseStreamingError)):
            await call(got["Body"].read)
        assert harness.store.streams_closed == 2


async def test_a_long_object_that_cannot_be_read_is_told_to_be(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with gateway_harness.running() as harness:
        s3 = harness.client(read_timeout=5)
        await call(s3.create_bucket, Bucket="books")
        await call(s3.put_object, Bucket="books", Key="big", Body=b"x" * 1_000_000)
        harness.store.fail_stream_after_bytes = 0
        for headers in ({}, {"Range": "bytes=1-900000"}):
            with pytest.raises(ClientError) as failure:
                await call(s3.get_object, Bucket="books", Key="big", **headers)
            assert code_of(failure) == ("ServiceUnavailable", 503)
        assert harness.store.streams_closed == 2
        # Later it is an answer broken off; neither is a fault of the program.
        harness.store.fail_stream_after_bytes = 600_000
        got = await call(s3.get_object, Bucket="books", Key="big")
        with pytest.raises((IncompleteReadError, ResponseStreamingError)):
            await call(got["Body"].read)
        failures = [record for record in caplog.records if "too few shards" in record.message]
        assert len(failures) == 3
        assert not [record for record in caplog.records if record.exc_info]


async def test_copy_rules() -> None:
    async with gateway_harness.running() as harness:
        s3 = harness.client()
        await call(s3.create_bucket, Bucket="books")
        await call(s3.put_object, Bucket="books", Key="k", Body=b"abc", Metadata={"a": "1"})
        source = {"Bucket": "books", "Key": "k"}
        await call(s3.copy_object, Bucket="books", Key="copy", CopySource=source)
        assert (await call(s3.head_object, Bucket="books", Key="copy"))["Metadata"] == {"a": "1"}
        with pytest.raises(ClientError) as failure:
            await call(s3.copy_object, Bucket="books", Key="k", CopySource=source)
        assert code_of(failure) == ("InvalidRequest", 400)
        s3.meta.events.register(
            "before-sign.s3.CopyObject",
            lambda request, **_: request.headers.add_header("x-amz-copy-source-range", "bytes=0-0"),
            unique_id="range",
        )
        with pytest.raises(ClientError) as failure:
            await call(s3.copy_object, Bucket="books", Key="part", CopySource=source)
        assert code_of(failure) == ("InvalidRequest", 400)
        s3.meta.events.unregister("before-sign.s3.CopyObject", unique_id="range")
        kept = {"Bucket": "books", "Key": "k", "CopySource": source}
        told = await call(s3.copy_object, **kept, ChecksumAlgorithm="SHA1")
        assert told["CopyObjectResult"]["ChecksumSHA1"] == "qZk+NkcGgWq6PiVxeFDCbJzQ2J0="
        await call(s3.copy_object, **kept, StorageClass="STANDARD")
        got = await call(s3.get_object, Bucket="books", Key="k", ChecksumMode="ENABLED")
        assert (await call(got["Body"].read), got["Metadata"]) == (b"abc", {"a": "1"})
        assert got["ChecksumSHA1"] == "qZk+NkcGgWq6PiVxeFDCbJzQ2J0="
        await call(
            s3.copy_object,
            Bucket="books",
            Key="k",
            CopySource=source,
            MetadataDirective="REPLACE",
            Metadata={"b": "2"},
        )
        got = await call(s3.get_object, Bucket="books", Key="k")
        assert (await call(got["Body"].read), got["Metadata"]) == (b"abc", {"b": "2"})
        with pytest.raises(ClientError) as failure:
            await call(
                s3.copy_object,
                Bucket="books",
                Key="copy",
                CopySource=source,
                ChecksumAlgorithm="CRC7",
            )
        assert code_of(failure) == ("InvalidRequest", 400)


async def test_refusals() -> None:
    async with gateway_harness.running() as harness:
        s3, bob = harness.client(), harness.client("bob")
        await call(s3.create_bucket, Bucket="books")
        await call(s3.put_object, Bucket="books", Key="k", Body=b"abc")
        with pytest.raises(ClientError) as failure:
            await call(bob.get_object, Bucket="books", Key="k")
        assert code_of(failure) == ("AccessDenied", 403)
        with pytest.raises(ClientError) as failure:
            await call(s3.put_object, Bucket="books", Key="k", Metadata={"a": "x" * 2048})
        assert code_of(failure) == ("MetadataTooLarge", 400)
        with pytest.raises(ClientError) as failure:
            await call(s3.get_object, Bucket="books", Key="k" * 1025)
        assert code_of(failure) == ("KeyTooLongError", 400)
        with pytest.raises(ClientError) as failure:
            await call(s3.get_bucket_website, Bucket="books")
        assert code_of(failure) == ("NotImplemented", 501)
        harness.store.fail_next = errors.OverloadedError("full queue")
        with pytest.raises(ClientError) as failure:
            await call(s3.get_object, Bucket="books", Key="k")
        assert code_of(failure) == ("SlowDown", 503)
        harness.store.fail_next = ValueError("a bug")
        with pytest.raises(ClientError) as failure:
            await call(s3.get_object, Bucket="books", Key="k")
        assert code_of(failure) == ("InternalError", 500)


async def test_what_is_not_done_is_refused_and_nothing_is_stored() -> None:
    async with gateway_harness.running() as harness:
        s3 = harness.client()
        key = {"Bucket": "books", "Key": "k"}
        await call(s3.create_bucket, Bucket="books", ObjectOwnership="BucketOwnerEnforced")
        await call(s3.put_object, **key, Body=b"abc", ACL="bucket-owner-full-control")
        wrong: list[tuple[Any, dict[str, Any]]] = [
            (s3.put_object, {**key, "Body": b"x", "WriteOffsetBytes": 3}),
            (s3.put_object, {**key, "Body": b"x", "ServerSideEncryption": "AES256"}),
            (s3.put_object_annotation, {**key, "AnnotationName": "n", "AnnotationPayload": b"x"}),
            (s3.delete_object_annotation, {**key, "AnnotationName": "n"}),
            (s3.delete_object, {**key, "IfMatchSize": 4}),
            (
                s3.delete_objects,
                {"Bucket": "books", "Delete": {"Objects": [{"Key": "k", "Size": 4}]}},
            ),
            (
                s3.create_bucket,
                {
                    "Bucket": "tagged",
                    "CreateBucketConfiguration": {"Tags": [{"Key": "a", "Value": "b"}]},
                },
            ),
        ]
        for operation, arguments in wrong:
            with pytest.raises(ClientError) as failure:
                await call(operation, **arguments)
            assert code_of(failure) == ("NotImplemented", 501)
        assert await call((await call(s3.get_object, **key))["Body"].read) == b"abc"
        assert [b["Name"] for b in (await call(s3.list_buckets))["Buckets"]] == ["books"]


async def test_only_failures_of_ours_are_logged_without_an_access_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="couchestor.access")
    async with gateway_harness.running(access_log=False) as harness:
        s3 = harness.client()
        await call(s3.create_bucket, Bucket="books")
        with pytest.raises(ClientError, match="NotImplemented"):
            await call(s3.get_bucket_website, Bucket="books")
        with pytest.raises(ClientError, match="NoSuchKey"):
            await call(s3.get_object, Bucket="books", Key="k")
        harness.store.fail_next = errors.StoreFullError("no zone is left")
        with pytest.raises(ClientError, match="InsufficientStorage"):
            await call(s3.get_object, Bucket="books", Key="k")
    logged = [record.message for record in caplog.records if record.name == "couchestor.access"]
    assert logged == ["GET GetObject 507"]


async def test_anonymous_is_denied_before_continue_is_sent() -> None:
    async with gateway_harness.running() as harness:
        await call(harness.client().create_bucket, Bucket="books")
        for bucket, status in ((b"books", b"403"), (b"none", b"404")):
            reader, writer = await asyncio.open_connection("127.0.0.1", harness.running.port)
            writer.write(
                b"PUT /%s/k HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
                b"Expect: 100-continue\r\n\r\n" % bucket
            )
            line = await reader.readline()
            writer.close()
            assert line.startswith(b"HTTP/1.1 " + status)


async def test_no_site_is_let_in_by_a_preflight() -> None:
    async with gateway_harness.running() as harness, aiohttp.ClientSession() as session:
        await call(harness.client().create_bucket, Bucket="books")
        url = f"http://127.0.0.1:{harness.running.port}/books/k"
        for headers, told in (
            ({}, (400, "BadRequest")),
            ({"Origin": "x"}, (400, "BadRequest")),
            ({"Origin": "x", "Access-Control-Request-Method": "GET"}, (403, "AccessForbidden")),
        ):
            async with session.options(url, headers=headers) as answer:
                assert (answer.status, told[1] in await answer.text()) == (told[0], True)


async def test_a_request_of_no_site_looks_for_no_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def let_in(reply: responses.Reply, *, method: str, **given: object) -> None:
        asked.append(method)

    monkeypatch.setattr(cross_origin, "let_in", let_in)
    async with gateway_harness.running() as harness:
        s3 = harness.client()
        await call(s3.create_bucket, Bucket="books")
        await call(s3.put_object, Bucket="books", Key="k", Body=b"x")
        await call(s3.get_object, Bucket="books", Key="k")
        assert asked == []
        url = f"http://127.0.0.1:{harness.running.port}/books/k"
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, headers={"Origin": "x"}) as answer,
        ):
            assert answer.status == 403
        assert asked == ["GET"]


async def test_a_bucket_that_tells_nobody_reads_no_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    def ready(document: bytes) -> notification_rules.Rules:
        read.append(document)
        return notification_rules.Rules(())

    monkeypatch.setattr(announcements, "_ready", ready)
    async with gateway_harness.running() as harness:
        s3 = harness.client()
        await call(s3.create_bucket, Bucket="books")
        for _ in range(2):
            await call(s3.put_object, Bucket="books", Key="k", Body=b"x")
            await call(s3.delete_object, Bucket="books", Key="k")
            assert read == []
        await harness.store.put_setting(
            bucket="books", setting=objects.Setting.NOTIFICATIONS, value=b"rules"
        )
        await call(s3.put_object, Bucket="books", Key="k", Body=b"x")
        assert read == [b"rules"]


async def test_a_request_of_a_bucket_without_a_log_makes_no_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def add(self: object, request: web.BaseRequest, *rest: object, **more: object) -> None:
        asked.append(request.method)

    monkeypatch.setattr(bucket_logs.BucketLogs, "add", add)
    async with gateway_harness.running() as harness:
        s3 = harness.client()
        await call(s3.create_bucket, Bucket="books")
        await call(s3.put_object, Bucket="books", Key="k", Body=b"x")
        await call(s3.get_object, Bucket="books", Key="k")
        await call(s3.list_buckets)
        assert asked == []
        await harness.store.put_setting(
            bucket="books", setting=objects.Setting.LOGGING, value=b"status"
        )
        await call(s3.get_object, Bucket="books", Key="k")
        assert asked == ["GET"]


async def test_a_posted_form_that_nobody_signed_is_denied() -> None:
    async with gateway_harness.running() as harness:
        await call(harness.client().create_bucket, Bucket="books")
        form = aiohttp.FormData({"key": "k"}, default_to_multipart=True)
        form.add_field("file", b"x", filename="x.txt")
        url = f"http://127.0.0.1:{harness.running.port}/books"
        async with aiohttp.ClientSession() as session, session.post(url, data=form) as answer:
            assert (answer.status, b"AccessDenied" in await answer.read()) == (403, True)
        assert harness.seen[-1][:2] == ("PostObject", 403)


async def test_a_stalled_body_times_out() -> None:
    limits = server.ServerLimits(stall_seconds=0.1, lingering_seconds=0.1)
    async with gateway_harness.running(limits) as harness:
        s3 = harness.client()
        await call(s3.create_bucket, Bucket="books")
        url = s3.generate_presigned_url("put_object", Params={"Bucket": "books", "Key": "k"})
        path = url.partition(f":{harness.running.port}")[2]
        reader, writer = await asyncio.open_connection("127.0.0.1", harness.running.port)
        host = f"127.0.0.1:{harness.running.port}"
        writer.write(f"PUT {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n\r\nab".encode())
        answer = await reader.read()
        assert b"RequestTimeout" in answer, answer[-400:]
        writer.close()


async def test_what_a_request_does_below_the_gateway_knows_whose_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with gateway_harness.running() as harness:
        s3 = harness.client()
        await call(s3.create_bucket, Bucket="books")
        seen: list[str] = []
        get_bucket = harness.store.get_bucket

        async def spied(name: str) -> objects.BucketRecord:
            seen.append(caller_context.REQUEST_ID.get())
            return await get_bucket(name)

        monkeypatch.setattr(harness.store, "get_bucket", spied)
        for _ in range(2):
            answer = await call(s3.head_bucket, Bucket="books")
            assert seen[-1] == answer["ResponseMetadata"]["RequestId"]
        assert len(set(seen)) == 2
