"""Which operation a request reaches: never another than the one that the client's SDK means."""

from __future__ import annotations

import functools
from typing import Any

import botocore.session
import pytest

from couchestor_gateway.edge import addressing, query_names, routing
from couchestor_gateway.operations import post_object
from couchestor_gateway.protocol import operation_needs, s3_error

_UNTELLABLE = {"ListDirectoryBuckets"}
"""Asked of another endpoint by the very request that asks for ListBuckets here."""


_OLD_NAMES = {
    "GetBucketNotification": "GetBucketNotificationConfiguration",
    "PutBucketNotification": "PutBucketNotificationConfiguration",
    "GetBucketLifecycle": "GetBucketLifecycleConfiguration",
    "PutBucketLifecycle": "PutBucketLifecycleConfiguration",
}
"""Deprecated operations -> those that the same request asks for by now."""


@functools.cache
def _model() -> Any:
    return botocore.session.get_session().get_service_model("s3")


def _asked(operation: str) -> tuple[str, str, str, dict[str, str], dict[str, str]]:
    """Method, bucket, key, query and headers of a call with every required argument."""
    model = _model().operation_model(operation)
    uri, _, raw_query = model.http["requestUri"].partition("?")
    query = addressing.parse_query(raw_query)
    headers = {}
    shape = model.input_shape
    for name in shape.required_members if shape is not None else ():
        where = shape.members[name].serialization
        if where.get("location") == "querystring":
            query[where["name"]] = "1"
        elif where.get("location") == "header":
            headers[where["name"]] = "value"
    bucket = uri.partition("/{Key")[0].strip("/").replace("{Bucket}", "books")
    return model.http["method"], bucket, "k" if "{Key" in uri else "", query, headers


def _reached(operation: str) -> str:
    """The operation's name, or the code of the refusal."""
    try:
        return routing.find(*_asked(operation)).name
    except s3_error.S3Error as refusal:
        return refusal.code


@pytest.mark.parametrize("operation", sorted(set(_model().operation_names) - _UNTELLABLE))
def test_every_operation_of_the_sdk_is_served_by_its_name_or_refused(operation: str) -> None:
    assert _reached(operation) in (_OLD_NAMES.get(operation, operation), "NotImplemented")


def test_what_we_serve_is_what_the_sdk_asks_for() -> None:
    served = {_reached(operation) for operation in _model().operation_names} - {"NotImplemented"}
    assert served == {operation.name for operation in routing.served()}


@pytest.mark.parametrize("operation", sorted(set(_model().operation_names) - _UNTELLABLE))
def test_parameters_without_a_value_refuse_nothing(operation: str) -> None:
    if _reached(operation) == "NotImplemented":
        return
    model = _model().operation_model(operation)
    members = model.input_shape.members.values() if model.input_shape is not None else ()
    names = {
        member.serialization["name"]
        for member in members
        if member.serialization.get("location") == "querystring"
    }
    assert names <= query_names.PARAMETERS | {"uploadId"}


@pytest.mark.parametrize("name", ["annotation", "notYetInvented", "not-yet-invented"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "POST"])
@pytest.mark.parametrize("key", ["", "k"])
def test_a_sub_resource_that_nobody_knows_is_refused(name: str, method: str, key: str) -> None:
    with pytest.raises(s3_error.S3Error) as failure:
        routing.find(method, "books", key, {name: ""}, {})
    assert failure.value.status == 501


@pytest.mark.parametrize(
    "query",
    [
        {"x-id": "PutObject"},
        {"x-id": ""},
        {"X-Amz-Security-Token": ""},
        {"X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Signature": "00"},
        {"trace": "yes"},
        {"1764084000": ""},
        {"_": ""},
    ],
)
def test_what_tools_add_is_ignored(query: dict[str, str]) -> None:
    assert routing.find("PUT", "books", "k", query, {}) is routing.PUT_OBJECT


def test_two_sub_resources_at_once_are_refused() -> None:
    for query in ({"uploadId": "1", "tagging": ""}, {"tagging": "", "uploadId": "1"}):
        with pytest.raises(s3_error.S3Error, match="Conflicting") as failure:
            routing.find("DELETE", "books", "k", query, {})
        assert failure.value.code == "InvalidArgument"


_FORM = {"Content-Type": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize(
    ("bucket", "key", "status"), [("", "", 405), ("books", "", 412), ("books", "k", 405)]
)
def test_a_plain_post_is_a_form_or_nothing(bucket: str, key: str, status: int) -> None:
    with pytest.raises(s3_error.S3Error) as failure:
        routing.find("POST", bucket, key, {}, {})
    assert failure.value.status == status


def test_a_form_is_not_signed_by_its_request() -> None:
    with pytest.raises(s3_error.S3Error, match="signed by its fields") as failure:
        routing.find("POST", "books", "", {}, _FORM)
    assert failure.value.code == "InvalidArgument"


@pytest.mark.parametrize(
    ("method", "bucket", "key", "query", "headers", "code"),
    [
        ("POST", "books", "", {}, _FORM, ""),
        ("POST", "books", "", {"x-id": "PostObject"}, _FORM, ""),
        ("POST", "books", "", {}, {}, "PreconditionFailed"),
        ("POST", "books", "k", {}, _FORM, "AccessDenied"),
        ("POST", "", "", {}, _FORM, "AccessDenied"),
        ("PUT", "", "", {}, {}, "AccessDenied"),
        ("OPTIONS", "books", "k", {}, {}, "AccessDenied"),
        ("GET", "books", "", {"website": ""}, {}, "AccessDenied"),
    ],
)
def test_without_a_signature_forms_come_in_and_what_is_not_served_is_denied(
    method: str,
    bucket: str,
    key: str,
    query: dict[str, str],
    headers: dict[str, str],
    code: str,
) -> None:
    if not code:
        assert routing.find_unsigned(method, bucket, key, query, headers) is None
        return
    with pytest.raises(s3_error.S3Error) as failure:
        routing.find_unsigned(method, bucket, key, query, headers)
    assert failure.value.code == code


def test_without_a_signature_the_same_operations_are_meant() -> None:
    for operation in ("GetObject", "PutObject", "CreateBucket", "ListBuckets", "DeleteObjects"):
        asked = _asked(operation)
        assert routing.find_unsigned(*asked) == routing.find(*asked)


def test_the_table_of_needs_is_that_of_the_operations() -> None:
    others = {post_object.NAME}
    names = {operation.name for operation in routing.served()}
    assert set(operation_needs.NEEDS) == names | others


def test_versions_of_the_listing() -> None:
    for version, name in (("", "ListObjects"), ("1", "ListObjects"), ("2", "ListObjectsV2")):
        assert routing.find("GET", "books", "", {"list-type": version}, {}).name == name
    for version in ("0", "3", "two"):
        with pytest.raises(s3_error.S3Error) as failure:
            routing.find("GET", "books", "", {"list-type": version}, {})
        assert failure.value.code == "InvalidArgument"


@pytest.mark.parametrize("query", [{"versionId": "null"}, {"versionId": ""}, {"partNumber": "1"}])
def test_a_write_that_means_another_one_is_refused(query: dict[str, str]) -> None:
    for headers in ({}, {"x-amz-copy-source": "/books/k"}):
        with pytest.raises(s3_error.S3Error) as failure:
            routing.find("PUT", "books", "k", query, headers)
        assert failure.value.code == "InvalidArgument"
