"""Users of a node, clients that sign as one of them or as nobody, and what they are answered."""

from __future__ import annotations

import pathlib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import boto3
import botocore
import botocore.config
import pytest
from botocore import auth, awsrequest
from botocore import credentials as boto_credentials
from botocore.exceptions import ClientError

from couchestor_bench import server_process

SECRET: Final = "{}-secret-key"
DENIED: Final = ("AccessDenied", 403)


def write(path: pathlib.Path, *names: str) -> None:
    """A file of users whose ids end in ``-id``.

    Replaced in one go, as tools do it: one half written is refused, with a line in the log.
    """
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(
        "".join(
            f'[[users]]\nid = "{name}-id"\ndisplay_name = "{name.title()}"\n'
            f'email = "{name}@example.com"\n'
            f'keys = [{{ access_key = "{name}", secret_key = "{SECRET.format(name)}" }}]\n'
            for name in names
        )
    )
    fresh.rename(path)


def client(server: server_process.ServerProcess, user: str | None) -> Any:
    """A client of a user, or of nobody."""
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=user or "x",
        aws_secret_access_key=SECRET.format(user),
        region_name="us-east-1",
        config=botocore.config.Config(
            signature_version=botocore.UNSIGNED if user is None else "s3v4",
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
        ),
    )


def refusal(call: Callable[..., object], **arguments: object) -> tuple[str, int]:
    """Code and status of the error that a call is answered with."""
    with pytest.raises(ClientError) as failure:
        call(**arguments)
    response = failure.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def read(client: Any, bucket: str, key: str = "k", **arguments: str) -> bytes:
    """An object's bytes."""
    body: bytes = client.get_object(Bucket=bucket, Key=key, **arguments)["Body"].read()
    return body


def status(
    server: server_process.ServerProcess,
    operation: str,
    bucket: str,
    upload_id: str,
    user: str | None,
    *,
    more_query: Mapping[str, str] = MappingProxyType({}),
    more_headers: Mapping[str, str] = MappingProxyType({}),
    body: bytes | None = None,
) -> int:
    """The answer to a bare request for an operation, with what it cannot do without."""
    model = botocore.session.get_session().get_service_model("s3").operation_model(operation)
    path, _, raw_query = model.http["requestUri"].partition("?")
    query = dict(urllib.parse.parse_qsl(raw_query, keep_blank_values=True))
    query.update(more_query)
    headers: dict[str, str] = {}
    for name in model.input_shape.required_members:
        where = model.input_shape.members[name].serialization
        if where.get("location") == "querystring":
            query[where["name"]] = upload_id if name == "UploadId" else "1"
        elif where.get("location") == "header":
            headers[where["name"]] = f"/{bucket}/k"
    headers.update(more_headers)
    path = path.replace("{Bucket}", bucket).replace("{Key+}", "k")
    url = f"{server.endpoint}{path}?{urllib.parse.urlencode(query)}"
    method = model.http["method"]
    request = awsrequest.AWSRequest(method, url, headers=headers, data=body)
    if user is not None:
        key = boto_credentials.Credentials(user, SECRET.format(user))
        auth.S3SigV4Auth(key, "s3", "us-east-1").add_auth(request)
    sent = urllib.request.Request(
        url, method=method, headers=dict(request.headers.items()), data=body
    )
    try:
        with urllib.request.urlopen(sent) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code
