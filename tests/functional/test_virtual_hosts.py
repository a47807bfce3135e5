"""Virtual-hosted addressing: the bucket in the host name, as AWS's own clients do it."""

from __future__ import annotations

import pathlib
import socket
import typing
import urllib.request

import boto3
import botocore.config
import pytest
from tests.functional import daemon_process

_DOMAIN: typing.Final = "s3.example.test"

pytestmark = pytest.mark.skipif(daemon_process.is_peer(), reason="our --domain")


@pytest.fixture(autouse=True)
def _resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name below the domain is this machine, as a wildcard record would say."""
    real = socket.getaddrinfo

    def resolve(host: typing.Any, *rest: typing.Any, **named: typing.Any) -> typing.Any:
        name = host.decode() if isinstance(host, bytes) else host
        is_ours = isinstance(name, str) and name.endswith(_DOMAIN)
        return real("127.0.0.1" if is_ours else host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_boto3_with_virtual_addressing(tmp_path: pathlib.Path) -> None:
    options = {"domain": _DOMAIN, "workers": "1"}
    with daemon_process.running(tmp_path / "node", options=options) as server:
        client = boto3.client(
            "s3",
            endpoint_url=f"http://{_DOMAIN}:{server.port}",
            aws_access_key_id=server.credentials.access_key,
            aws_secret_access_key=server.credentials.secret_key,
            region_name=server.credentials.region,
            config=botocore.config.Config(
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "virtual"},
                signature_version="s3v4",
            ),
        )
        asked: list[str] = []
        client.meta.events.register(
            "before-send.s3", lambda request, **_: asked.append(request.url)
        )
        client.create_bucket(Bucket="photos")
        keys = ["a", "a/b c/ü+%2F", "photos/photos"]
        for key in keys:
            client.put_object(Bucket="photos", Key=key, Body=key.encode())
        for key in keys:
            read = client.get_object(Bucket="photos", Key=key)["Body"].read()
            assert read == key.encode()
        listed = client.list_objects_v2(Bucket="photos")["Contents"]
        assert [row["Key"] for row in listed] == sorted(keys)
        prefix = f"http://photos.{_DOMAIN}:{server.port}/"
        assert len(asked) == 8
        assert all(url.startswith(prefix) for url in asked), asked

        presigned = client.generate_presigned_url(
            "get_object", Params={"Bucket": "photos", "Key": "a"}
        )
        assert presigned.startswith(prefix)
        with urllib.request.urlopen(presigned, timeout=10) as answer:
            assert answer.read() == b"a"

        # The same objects by path, under the domain and under the address.
        by_path = daemon_process.boto_client(server)
        assert by_path.get_object(Bucket="photos", Key="a")["Body"].read() == b"a"
        names = [row["Name"] for row in client.list_buckets()["Buckets"]]
        assert names == sorted([daemon_process.BUCKET, "photos"])
