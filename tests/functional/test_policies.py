"""Bucket policies at the real daemon: what each operation needs, conditions, and the public."""

from __future__ import annotations

import http.client
import json
import pathlib
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError
from tests.functional import daemon_process, several_users
from tests.functional.several_users import DENIED, client, read, refusal

from couchestor_bench import server_process
from couchestor_gateway.edge import routing
from couchestor_gateway.protocol import operation_needs
from couchestor_gateway.protocol.operation_needs import Place

Client = Any
NOT_ALLOWED: Final = ("MethodNotAllowed", 405)
NONE: Final = ("NoSuchBucketPolicy", 404)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server_process.ServerProcess]:
    folder = tmp_path_factory.mktemp("policies")
    several_users.write(folder / "users.toml", "ada", "bob")
    options = {"workers": "2", "users-file": str(folder / "users.toml")}
    with daemon_process.running(folder / "node", options=options) as running:
        yield running


@pytest.fixture
def ada(server: server_process.ServerProcess) -> Client:
    """Whose bucket it is."""
    return client(server, "ada")


@pytest.fixture
def bob(server: server_process.ServerProcess) -> Client:
    return client(server, "bob")


@pytest.fixture
def nobody(server: server_process.ServerProcess) -> Client:
    return client(server, None)


@pytest.fixture
def bucket(ada: Client) -> str:
    """Ada's, with an object ``k``."""
    name = f"b-{uuid.uuid4().hex}"
    ada.create_bucket(Bucket=name)
    ada.put_object(Bucket=name, Key="k", Body=b"hers")
    return name


def _statement(bucket: str, **members: Any) -> dict[str, Any]:
    """One that allows bob to read all objects, but for what is given."""
    usual = {
        "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam:::user/bob-id"},
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    return {**usual, **members}


def _put(owner: Client, bucket: str, *statements: Mapping[str, Any]) -> str:
    """Replace the policy; statements of everything in the bucket name no resource."""
    document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    owner.put_bucket_policy(Bucket=bucket, Policy=document)
    return document


def _everywhere(bucket: str) -> list[str]:
    return [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]


def _allow(owner: Client, bucket: str, **members: Any) -> None:
    _put(owner, bucket, _statement(bucket, **members))


# -- the policy itself ---------------------------------------------------------------------------


def test_a_policy_comes_back_as_it_was_put(ada: Client, bucket: str) -> None:
    assert refusal(ada.get_bucket_policy, Bucket=bucket) == NONE
    document = json.dumps({"Statement": _statement(bucket, Sid="Wörter")}, indent=3)
    answer = ada.put_bucket_policy(Bucket=bucket, Policy=document)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert ada.get_bucket_policy(Bucket=bucket)["Policy"] == document
    for _ in range(2):
        ada.delete_bucket_policy(Bucket=bucket)
    assert refusal(ada.get_bucket_policy, Bucket=bucket) == NONE


@pytest.mark.parametrize(
    "document",
    [
        "",
        "{",
        "{}",
        '{"Statement": []}',
        '{"Statement": [], "Statement": []}',
        "[" * 20_000,
        '{"Id": "' + "x" * 20_480 + '"}',
        json.dumps({"Statement": _statement("another")}),
    ],
)
def test_what_is_no_policy_leaves_the_one_before(ada: Client, bucket: str, document: str) -> None:
    kept = _put(ada, bucket, _statement(bucket))
    refused = refusal(ada.put_bucket_policy, Bucket=bucket, Policy=document)
    assert refused == ("MalformedPolicy", 400)
    assert ada.get_bucket_policy(Bucket=bucket)["Policy"] == kept


def test_who_is_named_must_be_known(ada: Client, bucket: str) -> None:
    for name in ("eve-id", "arn:aws:iam:::user/eve-id", "arn:aws:iam:::user/*"):
        with pytest.raises(ClientError, match="Invalid principal in policy"):
            _allow(ada, bucket, Principal={"AWS": name})
    for name in ("bob-id", "arn:aws:iam::bob-id:root", "arn:aws:iam::elsewhere:root"):
        _allow(ada, bucket, Principal={"AWS": name})


def test_the_owner_manages_the_policy_whatever_it_says(
    ada: Client, bob: Client, nobody: Client, bucket: str
) -> None:
    everything = {"Principal": "*", "Action": "s3:*", "Resource": _everywhere(bucket)}
    kept = _put(ada, bucket, _statement(bucket, Effect="Deny", **everything))
    assert refusal(ada.get_object, Bucket=bucket, Key="k") == DENIED
    assert refusal(ada.get_bucket_policy_status, Bucket=bucket) == DENIED
    assert ada.get_bucket_policy(Bucket=bucket)["Policy"] == kept
    ada.put_bucket_policy(Bucket=bucket, Policy=kept, ConfirmRemoveSelfBucketAccess=True)
    assert refusal(bob.get_bucket_policy, Bucket=bucket) == DENIED
    _put(ada, bucket, _statement(bucket, **everything))
    for other in (bob, nobody):
        assert refusal(other.get_bucket_policy, Bucket=bucket) == NOT_ALLOWED
        assert refusal(other.put_bucket_policy, Bucket=bucket, Policy=kept) == NOT_ALLOWED
        assert refusal(other.delete_bucket_policy, Bucket=bucket) == NOT_ALLOWED
    ada.delete_bucket_policy(Bucket=bucket)
    assert read(ada, bucket) == b"hers"


def test_a_policy_outlives_a_crash_and_a_lost_index(tmp_path: pathlib.Path) -> None:
    users = tmp_path / "users.toml"
    several_users.write(users, "ada", "bob")
    options = {"workers": "2", "users-file": str(users)}
    with daemon_process.running(tmp_path / "node", options=options) as server:
        ada, bob = client(server, "ada"), client(server, "bob")
        ada.create_bucket(Bucket="hers")
        ada.put_object(Bucket="hers", Key="k", Body=b"x")
        kept = _put(ada, "hers", _statement("hers"))
        server.kill()
        shutil.rmtree(tmp_path / "node" / "index")
        server.start()
        assert ada.get_bucket_policy(Bucket="hers")["Policy"] == kept
        assert read(bob, "hers") == b"x"
        assert refusal(bob.put_object, Bucket="hers", Key="k", Body=b"y") == DENIED


# -- what each operation needs -------------------------------------------------------------------

_OPERATIONS: Final = sorted(
    # Keys of one request are judged one by one; for them there is a test below.
    name
    for name in {each.name for each in routing.served()} - {"DeleteObjects"}
    if operation_needs.NEEDS[name].place is not Place.SERVICE
)
_COPIES: Final = ("CopyObject", "UploadPartCopy")
_BODIES: Final = {
    "PutObjectLegalHold": b"<LegalHold><Status>OFF</Status></LegalHold>",
    "PutObjectRetention": b"<Retention/>",
    "PutObjectTagging": b"<Tagging><TagSet/></Tagging>",
}
"""Of operations that are judged by what their bodies say."""


@pytest.mark.parametrize("version", [False, True])
def test_each_operation_is_allowed_and_denied_by_its_actions(
    server: server_process.ServerProcess, ada: Client, bob: Client, bucket: str, version: bool
) -> None:
    resources = _everywhere(bucket)

    def statement(*actions: str, **members: Any) -> dict[str, Any]:
        return _statement(bucket, Action=actions, Resource=resources, **members)

    def upload_of(owner: Client) -> str:
        return str(owner.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"])

    wrong: dict[str, dict[str, int]] = {}
    for operation in _OPERATIONS:
        need = operation_needs.NEEDS[operation]
        if version:
            if need.versioned is None:
                continue
            need = need.versioned
        actions = list(need.actions)
        if operation in _COPIES:
            # Of the source, which is the same object.
            actions.append("s3:GetObject")
        _put(ada, bucket, statement("s3:PutObject"))
        # Others go on with their own uploads; those of anybody a policy lets them list and abort.
        upload_id = upload_of(ada if need.permission is None else bob)

        def status(user: str, operation: str = operation, upload_id: str = upload_id) -> int:
            return several_users.status(
                server,
                operation,
                bucket,
                upload_id,
                user,
                more_query={"versionId": "null"} if version else {},
                body=_BODIES.get(operation),
            )

        _put(ada, bucket, statement("s3:GetObjectTorrent", "s3:PutBucketWebsite"))
        found = {"not named": status("bob")}
        everybody = statement("s3:*", Principal="*")
        denial = statement(actions[0], Effect="Deny", Principal="*")
        _put(ada, bucket, everybody, denial)
        found["denied"] = status("bob")
        expected = {"not named": 403, "denied": 403}
        if actions[0] not in operation_needs.OWNERS_ALWAYS:
            found["denied to the owner"] = status("ada")
            expected["denied to the owner"] = 403
        _put(ada, bucket, statement(*actions))
        allowed = status("bob")
        is_owners = operation.endswith("BucketPolicy")
        if found != expected or (allowed != 405 if is_owners else allowed == 403):
            wrong[operation] = {**found, "allowed": allowed}
        ada.put_object(Bucket=bucket, Key="k", Body=b"hers")
    assert not wrong


def test_who_may_not_read_an_object_learns_its_etag_from_no_delete(
    ada: Client, bob: Client, bucket: str
) -> None:
    etag = ada.head_object(Bucket=bucket, Key="k")["ETag"]

    def allow(*actions: str) -> None:
        _put(ada, bucket, _statement(bucket, Action=actions))

    def listed(tag: str) -> str:
        doomed = {"Objects": [{"Key": "k", "ETag": tag}]}
        return str(bob.delete_objects(Bucket=bucket, Delete=doomed)["Errors"][0]["Code"])

    allow("s3:DeleteObject")
    for guess in (etag, "other"):
        assert refusal(bob.delete_object, Bucket=bucket, Key="k", IfMatch=guess) == DENIED
        assert listed(guess) == "AccessDenied"
    allow("s3:DeleteObject", "s3:GetObject")
    failed = refusal(bob.delete_object, Bucket=bucket, Key="k", IfMatch="other")
    assert failed == ("PreconditionFailed", 412)
    assert listed("other") == "PreconditionFailed"
    bob.delete_object(Bucket=bucket, Key="k", IfMatch=etag)


def test_a_policy_asks_for_the_condition_of_each_key(ada: Client, bob: Client, bucket: str) -> None:
    etag = ada.head_object(Bucket=bucket, Key="k")["ETag"]
    conditional = _statement(
        bucket, Action="s3:DeleteObject", Condition={"Null": {"s3:if-match": "false"}}
    )
    _put(ada, bucket, conditional, _statement(bucket))
    assert refusal(bob.delete_object, Bucket=bucket, Key="k") == DENIED

    def with_header(request: AWSRequest, **_: Any) -> None:
        request.headers["If-Match"] = etag

    bob.meta.events.register_first("before-sign.s3.DeleteObjects", with_header)

    def deleted(**condition: str) -> Any:
        return bob.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k", **condition}]})

    # The header is no condition of a key.
    assert deleted()["Errors"][0]["Code"] == "AccessDenied"
    assert deleted(ETag=etag)["Deleted"] == [{"Key": "k"}]


def test_keys_of_one_request_are_judged_one_by_one(ada: Client, bob: Client, bucket: str) -> None:
    ada.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    kept = ada.put_object(Bucket=bucket, Key="his/k", Body=b"")["VersionId"]
    his = f"arn:aws:s3:::{bucket}/his/*"
    doomed = [{"Key": "k"}, {"Key": "his/k"}, {"Key": "his/k", "VersionId": kept}]

    def outcome() -> list[tuple[str, str, str]]:
        answer = bob.delete_objects(Bucket=bucket, Delete={"Objects": doomed})
        return sorted(
            (each["Key"], each.get("VersionId", ""), each.get("Code", ""))
            for each in (*answer.get("Deleted", ()), *answer.get("Errors", ()))
        )

    assert refusal(bob.delete_objects, Bucket=bucket, Delete={"Objects": doomed}) == DENIED
    _allow(ada, bucket, Action="s3:DeleteObject", Resource=his)
    assert outcome() == [
        ("his/k", "", ""),
        ("his/k", kept, "AccessDenied"),
        ("k", "", "AccessDenied"),
    ]
    _allow(ada, bucket, Action="s3:DeleteObjectVersion", Resource=his)
    assert outcome() == [
        ("his/k", "", "AccessDenied"),
        ("his/k", kept, ""),
        ("k", "", "AccessDenied"),
    ]
    assert read(ada, bucket) == b"hers"


def test_a_write_that_asks_for_more_needs_more(ada: Client, bob: Client, bucket: str) -> None:
    _allow(ada, bucket, Action="s3:PutObject")
    put = {"Bucket": bucket, "Key": "his", "Body": b"his"}
    bob.put_object(**put)
    bob.put_object(**put, ACL="bucket-owner-full-control")
    assert refusal(bob.put_object, **put, Tagging="a=b") == DENIED
    assert refusal(bob.create_multipart_upload, Bucket=bucket, Key="up", Tagging="a=b") == DENIED
    _put(
        ada,
        bucket,
        _statement(bucket, Action=["s3:PutObject", "s3:PutObjectTagging"]),
        _statement(bucket, Effect="Deny", Action="s3:PutObjectAcl"),
    )
    bob.put_object(**put, Tagging="a=b")
    assert refusal(bob.put_object, **put, ACL="private") == DENIED
    # By its ACL a bucket lets those who write give tags, too.
    ada.put_bucket_policy(
        Bucket=bucket, Policy=json.dumps({"Statement": _statement(bucket, Effect="Deny")})
    )
    ada.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    bob.put_object(**put, Tagging="a=b")
    assert refusal(bob.get_object, Bucket=bucket, Key="his") == DENIED


def test_copies_need_both_ends_and_tags_of_their_own(ada: Client, bob: Client, bucket: str) -> None:
    own = f"{bucket[:40]}-own"
    bob.create_bucket(Bucket=own)
    source = {"Bucket": bucket, "Key": "k"}
    copy: dict[str, Any] = {"Bucket": own, "Key": "c", "CopySource": source}
    assert refusal(bob.copy_object, **copy) == DENIED
    _allow(ada, bucket)
    bob.copy_object(**copy)
    assert read(bob, own, "c") == b"hers"
    assert refusal(ada.copy_object, **copy) == DENIED
    ada.put_object(Bucket=bucket, Key="k", Body=b"tagged", Tagging="a=b")
    assert refusal(bob.copy_object, **copy) == DENIED
    bob.copy_object(**copy, TaggingDirective="REPLACE", Tagging="c=d")
    _allow(ada, bucket, Action=["s3:GetObject", "s3:GetObjectTagging"])
    bob.copy_object(**copy)
    told = bob.get_object_tagging(Bucket=own, Key="c")["TagSet"]
    assert told == [{"Key": "a", "Value": "b"}]
    source["VersionId"] = "null"
    assert refusal(bob.copy_object, **copy) == DENIED
    _allow(ada, bucket, Action=["s3:GetObjectVersion", "s3:GetObjectVersionTagging"])
    bob.copy_object(**copy)


def test_what_others_wrote_is_not_the_bucket_owners_to_give(
    ada: Client, bob: Client, nobody: Client, bucket: str
) -> None:
    _put(
        ada,
        bucket,
        _statement(bucket, Action="s3:PutObject"),
        _statement(bucket, Principal="*"),
    )
    assert read(nobody, bucket) == b"hers"
    bob.put_object(Bucket=bucket, Key="his", Body=b"his")
    assert refusal(nobody.get_object, Bucket=bucket, Key="his") == DENIED
    assert read(bob, bucket, "his") == b"his"
    controls = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    ada.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=controls)
    assert read(nobody, bucket, "his") == b"his"


def test_what_is_missing_is_told_to_who_may_list_it(ada: Client, bob: Client, bucket: str) -> None:
    only = {"StringLike": {"s3:prefix": "open/*"}}
    _allow(ada, bucket, Action="s3:ListBucket", Resource=f"arn:aws:s3:::{bucket}", Condition=only)
    assert refusal(bob.head_object, Bucket=bucket, Key="open/none")[1] == 404
    assert refusal(bob.head_object, Bucket=bucket, Key="none")[1] == 403
    assert refusal(bob.head_object, Bucket=bucket, Key="k")[1] == 403
    _put(
        ada,
        bucket,
        _statement(bucket, Action="s3:ListBucket", Resource=f"arn:aws:s3:::{bucket}"),
        _statement(bucket, Effect="Deny"),
    )
    assert refusal(bob.get_object, Bucket=bucket, Key="none") == DENIED
    assert refusal(bob.get_object_tagging, Bucket=bucket, Key="none") == ("NoSuchKey", 404)


# -- conditions ----------------------------------------------------------------------------------


def _get(
    server: server_process.ServerProcess, path: str, headers: Mapping[str, str] | None = None
) -> int:
    """The answer to nobody's GET."""
    request = urllib.request.Request(f"{server.endpoint}/{path}", headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


@pytest.mark.parametrize(
    ("condition", "headers", "status"),
    [
        ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, {}, 200),
        ({"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "::1"]}}, {}, 403),
        # What a client says of its address is not asked.
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {"X-Forwarded-For": "10.0.0.1"}, 403),
        ({"NotIpAddress": {"aws:SourceIp": "127.0.0.1"}}, {}, 403),
        ({"StringLike": {"aws:Referer": "https://a.example/*"}}, {}, 403),
        (
            {"StringLike": {"aws:Referer": "https://a.example/*"}},
            {"Referer": "https://a.example/x"},
            200,
        ),
        ({"StringLike": {"aws:UserAgent": "Python-urllib/*"}}, {}, 200),
        ({"StringLike": {"aws:UserAgent": "curl/*"}}, {}, 403),
        ({"Bool": {"aws:SecureTransport": False}}, {}, 200),
        ({"Bool": {"aws:SecureTransport": "true"}}, {}, 403),
        ({"Null": {"s3:TlsVersion": True, "aws:PrincipalArn": True}}, {}, 200),
        ({"DateGreaterThan": {"aws:CurrentTime": "2026-01-01T00:00:00Z"}}, {}, 200),
        ({"DateLessThan": {"aws:CurrentTime": "2026-01-01T00:00:00Z"}}, {}, 403),
        ({"NumericGreaterThan": {"aws:EpochTime": 1767225600}}, {}, 200),
        ({"StringEquals": {"aws:userid": "anonymous", "aws:PrincipalType": "Anonymous"}}, {}, 200),
        ({"Null": {"s3:authType": "true", "s3:signatureversion": "true"}}, {}, 200),
        ({"StringEquals": {"s3:ExistingObjectTag/open": "yes"}}, {}, 200),
        ({"StringEquals": {"s3:ExistingObjectTag/open": "no"}}, {}, 403),
        ({"StringEquals": {"s3:ExistingObjectTag/Open": "yes"}}, {}, 403),
        ({"StringEquals": {"aws:RequestedRegion": "us-east-1"}}, {}, 200),
        ({"StringEquals": {"aws:PrincipalOrgID": "o-1"}}, {}, 403),
    ],
)
def test_conditions_on_nobody(
    server: server_process.ServerProcess,
    ada: Client,
    bucket: str,
    condition: dict[str, Any],
    headers: dict[str, str],
    status: int,
) -> None:
    ada.put_object(Bucket=bucket, Key="k", Body=b"hers", Tagging="open=yes")
    _allow(ada, bucket, Principal="*", Condition=condition)
    assert _get(server, f"{bucket}/k", headers) == status
    # The same as a denial, of which the owner is no exception.
    _put(
        ada,
        bucket,
        _statement(bucket, Principal="*"),
        _statement(bucket, Effect="Deny", Principal="*", Condition=condition),
    )
    assert _get(server, f"{bucket}/k", headers) == (403 if status == 200 else 200)


def test_a_header_sent_twice_is_not_believed(
    server: server_process.ServerProcess, ada: Client, bucket: str
) -> None:
    _allow(ada, bucket, Principal="*", Condition={"StringLike": {"aws:Referer": "good*"}})
    host, port = server.endpoint.removeprefix("http://").split(":")
    answers = []
    for referers in (["good"], ["good", "bad"], ["bad", "good"]):
        connection = http.client.HTTPConnection(host, int(port))
        connection.putrequest("GET", f"/{bucket}/k")
        for referer in referers:
            connection.putheader("Referer", referer)
        connection.endheaders()
        answers.append(connection.getresponse().status)
        connection.close()
    assert answers == [200, 403, 403]


def test_conditions_on_listings(ada: Client, bob: Client, bucket: str) -> None:
    for key in ("bob-id/a", "bob-id/b"):
        ada.put_object(Bucket=bucket, Key=key, Body=b"")
    _allow(
        ada,
        bucket,
        Action="s3:ListBucket",
        Resource=f"arn:aws:s3:::{bucket}",
        Condition={
            "StringLike": {"s3:prefix": "${aws:username}/*"},
            "StringEquals": {"s3:delimiter": "/"},
            "NumericLessThanEquals": {"s3:max-keys": 10},
        },
    )
    asked = {"Bucket": bucket, "Prefix": "bob-id/", "Delimiter": "/", "MaxKeys": 10}
    for call in (bob.list_objects, bob.list_objects_v2):
        assert [each["Key"] for each in call(**asked)["Contents"]] == ["bob-id/a", "bob-id/b"]
        for name, value in (("Prefix", "ada-id/"), ("Delimiter", "-"), ("MaxKeys", 11)):
            assert refusal(call, **{**asked, name: value}) == DENIED
        for name in ("Prefix", "Delimiter", "MaxKeys"):
            less = {each: value for each, value in asked.items() if each != name}
            assert refusal(call, **less) == DENIED
    assert refusal(bob.list_object_versions, **asked) == DENIED
    # What a listing may be asked for opens no object.
    assert refusal(bob.get_object, Bucket=bucket, Key="bob-id/a") == DENIED


def test_conditions_on_writes(ada: Client, bob: Client, bucket: str) -> None:
    put = {"Bucket": bucket, "Key": "his", "Body": b"his"}

    def outcomes(condition: dict[str, Any], *variants: dict[str, Any]) -> list[int]:
        actions = ["s3:PutObject", "s3:PutObjectTagging"]
        statements = [
            _statement(bucket, Action=action, Condition=condition if index == 0 else {})
            for index, action in enumerate(actions)
        ]
        _put(ada, bucket, *statements)
        return [_status(bob, **put, **variant) for variant in variants]

    assert outcomes(
        {"StringEquals": {"s3:RequestObjectTag/security": "public"}},
        {},
        {"Tagging": "security=public"},
        {"Tagging": "security=private"},
        {"Tagging": "Security=public"},
    ) == [403, 200, 403, 403]
    assert outcomes(
        {"ForAllValues:StringEquals": {"s3:RequestObjectTagKeys": ["a", "b"]}},
        {},
        {"Tagging": "a=1&b=2"},
        {"Tagging": "a=1&c=2"},
    ) == [200, 200, 403]
    assert outcomes(
        {"StringEquals": {"s3:x-amz-acl": "bucket-owner-full-control"}},
        {},
        {"ACL": "bucket-owner-full-control"},
        {"ACL": "public-read"},
    ) == [403, 200, 403]
    assert outcomes(
        {"StringEquals": {"s3:x-amz-grant-full-control": "id=ada-id"}},
        {"GrantFullControl": "id=ada-id"},
        {"GrantFullControl": "id=bob-id"},
    ) == [200, 403]
    assert outcomes(
        {
            "StringNotEquals": {"s3:x-amz-storage-class": "GLACIER"},
            "Null": {"s3:if-none-match": False},
        },
        {},
        {"IfNoneMatch": '"x"'},
        {"IfNoneMatch": '"x"', "StorageClass": "GLACIER"},
    ) == [403, 200, 403]
    assert outcomes(
        {"StringEquals": {"s3:x-amz-server-side-encryption": "AES256"}},
        {},
        # Let through, and then it is not done here.
        {"ServerSideEncryption": "AES256"},
    ) == [403, 501]
    assert outcomes(
        {
            "NumericLessThan": {"s3:signatureAge": 600_000},
            "StringEquals": {
                "s3:authType": "REST-HEADER",
                "s3:signatureversion": "AWS4-HMAC-SHA256",
                "aws:PrincipalArn": "arn:aws:iam:::user/bob-id",
                "s3:ResourceAccount": "ada-id",
            },
        },
        {},
    ) == [200]


def _status(client: Client, **arguments: Any) -> int:
    try:
        answer = client.put_object(**arguments)
    except ClientError as refused:
        return int(refused.response["ResponseMetadata"]["HTTPStatusCode"])
    return int(answer["ResponseMetadata"]["HTTPStatusCode"])


def test_conditions_on_copies(
    server: server_process.ServerProcess, ada: Client, bob: Client, bucket: str
) -> None:
    for key in ("open/a", "secret/a"):
        ada.put_object(Bucket=bucket, Key=key, Body=b"x")
    target = f"{bucket[:40]}-to"
    ada.create_bucket(Bucket=target)
    _allow(ada, bucket)
    _allow(
        ada,
        target,
        Action="s3:PutObject",
        Condition={
            "StringLike": {"s3:x-amz-copy-source": f"{bucket}/open/*"},
            "StringEqualsIfExists": {"s3:x-amz-metadata-directive": "COPY"},
        },
    )

    def status(source: str, **headers: str) -> int:
        more = {"x-amz-copy-source": source, **headers}
        return several_users.status(server, "CopyObject", target, "", "bob", more_headers=more)

    assert status(f"{bucket}/open/a") == 200
    assert status(f"/{bucket}/%6Fpen/a") == 200
    assert status(f"{bucket}/secret/a") == 403
    # What is read is what is judged.
    assert status(f"/{bucket}/secret%2Fa") == 403
    assert status(f"/{bucket}/open%2F..%2Fsecret/a") == 403
    assert status(f"/{bucket}/open/a", **{"x-amz-metadata-directive": "REPLACE"}) == 403
    assert refusal(bob.put_object, Bucket=target, Key="c", Body=b"") == DENIED


def test_conditions_on_versions_and_their_tags(ada: Client, bob: Client, bucket: str) -> None:
    ada.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first, second = (
        ada.put_object(Bucket=bucket, Key="k", Body=body, Tagging=f"open={body.decode()}")
        for body in (b"yes", b"no")
    )
    only = {"StringEquals": {"s3:VersionId": first["VersionId"]}}
    _allow(ada, bucket, Action="s3:GetObjectVersion", Condition=only)
    assert read(bob, bucket, VersionId=first["VersionId"]) == b"yes"
    assert refusal(bob.get_object, Bucket=bucket, Key="k", VersionId=second["VersionId"]) == DENIED
    assert refusal(bob.get_object, Bucket=bucket, Key="k") == DENIED
    tagged = {"StringEquals": {"s3:ExistingObjectTag/open": "yes"}}
    _allow(ada, bucket, Action=["s3:GetObject*", "s3:PutObject*Tagging"], Condition=tagged)
    assert read(bob, bucket, VersionId=first["VersionId"]) == b"yes"
    assert refusal(bob.get_object, Bucket=bucket, Key="k") == DENIED
    closing = {"TagSet": [{"Key": "open", "Value": "no"}]}
    tags = {"Bucket": bucket, "Key": "k", "VersionId": first["VersionId"]}
    bob.get_object_acl(**tags)
    bob.get_object_tagging(**tags)
    bob.put_object_tagging(**tags, Tagging=closing)
    assert refusal(bob.put_object_tagging, **tags, Tagging=closing) == DENIED
    assert refusal(bob.get_object, **tags) == DENIED


def test_tags_in_a_body_are_asked_for(ada: Client, bob: Client, bucket: str) -> None:
    only = {"StringEquals": {"s3:RequestObjectTag/team": "red"}}
    _allow(ada, bucket, Action="s3:PutObjectTagging", Condition=only)
    tags = {"Bucket": bucket, "Key": "k"}
    red = {"TagSet": [{"Key": "team", "Value": "red"}]}
    blue = {"TagSet": [{"Key": "team", "Value": "blue"}]}
    bob.put_object_tagging(**tags, Tagging=red)
    assert refusal(bob.put_object_tagging, **tags, Tagging=blue) == DENIED
    assert ada.get_object_tagging(**tags)["TagSet"] == red["TagSet"]


# -- signed elsewhere than in headers ------------------------------------------------------------


def test_a_presigned_url_is_judged_when_it_is_used(
    server: server_process.ServerProcess, ada: Client, bob: Client, bucket: str
) -> None:
    where = {"Bucket": bucket, "Key": "k"}
    url = bob.generate_presigned_url("get_object", where).removeprefix(f"{server.endpoint}/")
    assert _get(server, url) == 403
    _allow(ada, bucket)
    assert _get(server, url) == 200
    assert _get(server, f"{bucket}/k") == 403
    _allow(ada, bucket, Condition={"StringEquals": {"s3:authType": "REST-QUERY-STRING"}})
    assert _get(server, url) == 200
    assert refusal(bob.get_object, **where) == DENIED
    _allow(ada, bucket, Condition={"NumericLessThan": {"s3:signatureAge": 0}})
    assert _get(server, url) == 403


def _post(server: server_process.ServerProcess, bucket: str, fields: dict[str, str]) -> int:
    boundary = uuid.uuid4().hex
    lines: list[str] = []
    for name, value in {**fields, "file": "content"}.items():
        kind = '; filename="f"' if name == "file" else ""
        lines += [f"--{boundary}", f'Content-Disposition: form-data; name="{name}"{kind}', ""]
        lines.append(value)
    request = urllib.request.Request(
        f"{server.endpoint}/{bucket}",
        data="\r\n".join([*lines, f"--{boundary}--", ""]).encode(),
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def test_forms_are_judged_as_writes(
    server: server_process.ServerProcess, ada: Client, bob: Client, bucket: str
) -> None:
    tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
    _allow(
        ada,
        bucket,
        Principal="*",
        Action="s3:PutObject",
        Resource=f"arn:aws:s3:::{bucket}/in/*",
    )
    assert _post(server, bucket, {"key": "in/${filename}"}) == 204
    assert _post(server, bucket, {"key": "out"}) == 403
    assert _post(server, bucket, {"key": "in/x", "tagging": tags}) == 403
    form = bob.generate_presigned_post(bucket, "in/signed")
    assert _post(server, bucket, form["fields"]) == 204
    only = {"StringEquals": {"s3:authType": "POST"}}
    _allow(ada, bucket, Action="s3:PutObject", Condition=only)
    assert _post(server, bucket, form["fields"]) == 204
    assert _post(server, bucket, {"key": "in/x"}) == 403
    assert refusal(bob.put_object, Bucket=bucket, Key="in/signed", Body=b"") == DENIED


# -- the public ----------------------------------------------------------------------------------


def _is_public(ada: Client, bucket: str) -> bool:
    public: bool = ada.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"]
    return public


def test_whether_a_bucket_is_public(ada: Client, bucket: str) -> None:
    assert not _is_public(ada, bucket)
    _allow(ada, bucket)
    assert not _is_public(ada, bucket)
    _allow(ada, bucket, Principal="*", Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/32"}})
    assert not _is_public(ada, bucket)
    _allow(ada, bucket, Principal="*")
    assert _is_public(ada, bucket)
    ada.delete_bucket_policy(Bucket=bucket)
    ada.put_bucket_acl(Bucket=bucket, ACL="authenticated-read")
    assert _is_public(ada, bucket)
    ada.put_public_access_block(
        Bucket=bucket, PublicAccessBlockConfiguration={"IgnorePublicAcls": True}
    )
    assert not _is_public(ada, bucket)


def test_public_policies_are_blocked_and_restricted(
    ada: Client, bob: Client, nobody: Client, bucket: str
) -> None:
    block = {"BlockPublicPolicy": True, "RestrictPublicBuckets": False}
    ada.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=block)
    _allow(ada, bucket)
    with pytest.raises(ClientError, match="blocked by the BlockPublicPolicy") as failure:
        _allow(ada, bucket, Principal="*")
    assert failure.value.response["Error"]["Code"] == "AccessDenied"
    assert read(bob, bucket) == b"hers"
    ada.delete_public_access_block(Bucket=bucket)
    _put(ada, bucket, _statement(bucket), _statement(bucket, Principal="*"))
    assert read(nobody, bucket) == b"hers"
    # What lets the public in stays, and lets nobody but the owner in.
    block = {"BlockPublicPolicy": True, "RestrictPublicBuckets": True}
    ada.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=block)
    assert _is_public(ada, bucket)
    for other in (bob, nobody):
        assert refusal(other.get_object, Bucket=bucket, Key="k") == DENIED
    assert read(ada, bucket) == b"hers"
    _allow(ada, bucket)
    assert read(bob, bucket) == b"hers"


def test_a_denial_overrules_lists_and_owners(
    ada: Client, bob: Client, nobody: Client, bucket: str
) -> None:
    ada.put_object_acl(Bucket=bucket, Key="k", ACL="public-read")
    ada.put_bucket_acl(Bucket=bucket, ACL="public-read")
    assert read(nobody, bucket) == b"hers"
    _allow(ada, bucket, Effect="Deny", Principal="*")
    for each in (ada, bob, nobody):
        assert refusal(each.get_object, Bucket=bucket, Key="k") == DENIED
        each.list_objects_v2(Bucket=bucket)
    others = {"Principal": None, "NotPrincipal": {"AWS": "bob-id"}}
    statement = _statement(bucket, Effect="Deny", **others)
    _put(ada, bucket, {name: value for name, value in statement.items() if value is not None})
    assert read(bob, bucket) == b"hers"
    assert refusal(ada.get_object, Bucket=bucket, Key="k") == DENIED


def test_every_worker_heeds_the_newest_policy(
    server: server_process.ServerProcess, ada: Client, bucket: str
) -> None:
    """Connections of their own reach one worker or the other."""
    for allowed in (True, False) * 5:
        effect = "Allow" if allowed else "Deny"
        _allow(ada, bucket, Principal="*", Effect=effect)
        answers = {_get(server, f"{bucket}/k") for _ in range(6)}
        assert answers == {200 if allowed else 403}


def test_a_policy_made_to_be_slow_holds_nobody_up(
    server: server_process.ServerProcess, ada: Client, bucket: str
) -> None:
    statement = _statement(
        bucket, Principal="*", Condition={"StringLike": {"aws:Referer": "*a*?a*b"}}
    )
    count = 19_000 // len(json.dumps(statement))
    _put(ada, bucket, *[statement] * count)
    started = time.monotonic()
    assert _get(server, f"{bucket}/{'a' * 1000}", {"Referer": "a" * 4_000}) == 403
    # Trying everything would take longer than anybody waits.
    assert time.monotonic() - started < 10
