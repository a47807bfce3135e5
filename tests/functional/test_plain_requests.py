"""What tenants, policies and limits cost requests that have nothing to do with them: nothing."""

from __future__ import annotations

from typing import NoReturn

import gateway_harness
import pytest

from couchestor_gateway.edge import authority, read_policies, request_facts
from couchestor_gateway.edge import request as s3_request


def _fails(*_: object, **__: object) -> NoReturn:
    raise AssertionError("asked for a request without policies, members and limits")


async def test_an_owner_without_policies_asks_lists_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (authority, "may"),
        (authority, "may_use_service"),
        (read_policies, "of"),
        (read_policies, "decide"),
        (request_facts, "RequestFacts"),
        (s3_request.S3Request, "_require_admission"),
    ):
        monkeypatch.setattr(module, name, _fails)
    async with gateway_harness.running() as harness:
        s3 = harness.client()
        where = {"Bucket": "books", "Key": "k"}
        await gateway_harness.call(s3.create_bucket, Bucket="books")
        await gateway_harness.call(s3.put_object, **where, Body=b"1")
        await gateway_harness.call(s3.get_object, **where)
        await gateway_harness.call(s3.head_object, **where)
        await gateway_harness.call(s3.list_objects_v2, Bucket="books")
        await gateway_harness.call(s3.delete_object, **where)
        await gateway_harness.call(s3.list_buckets)
        assert {status for _, status, *_ in harness.seen} <= {200, 204}
