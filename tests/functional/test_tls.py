"""HTTPS from certificate files, which are replaced without a restart."""

from __future__ import annotations

import http.client
import json
import pathlib
import shutil
import signal
import ssl
import subprocess
import time
import typing

import boto3
import botocore.config
import pytest
from tests.functional import daemon_process, node_command

from couchestor_bench import server_process

_CONNECTIONS: typing.Final = 24
"""Enough new connections for each of two workers to take some."""

pytestmark = [
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates"),
    pytest.mark.skipif(daemon_process.is_peer(), reason="our TLS"),
]


def _make(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A self-signed certificate for loopback and its key."""
    folder.mkdir()
    cert, key = folder / "tls.crt", folder / "tls.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *(
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=node",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
            ),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


def _client(server: server_process.ServerProcess, trusted: pathlib.Path) -> typing.Any:
    return boto3.client(
        "s3",
        endpoint_url=f"https://127.0.0.1:{server.port}",
        verify=str(trusted),
        aws_access_key_id=server.credentials.access_key,
        aws_secret_access_key=server.credentials.secret_key,
        region_name=server.credentials.region,
        config=botocore.config.Config(retries={"total_max_attempts": 1}),
    )


def _served(server: server_process.ServerProcess) -> set[str]:
    """The certificates that new connections are shown."""
    return {ssl.get_server_certificate(("127.0.0.1", server.port)) for _ in range(_CONNECTIONS)}


def test_a_certificate_replaced_on_disk_is_served_without_a_restart(
    tmp_path: pathlib.Path,
) -> None:
    first, first_key = _make(tmp_path / "first")
    second, second_key = _make(tmp_path / "second")
    used_cert, used_key = tmp_path / "tls.crt", tmp_path / "tls.key"
    shutil.copy(first, used_cert)
    shutil.copy(first_key, used_key)
    options = {"workers": "2", "tls-cert": str(used_cert), "tls-key": str(used_key)}
    with server_process.couchestor(tmp_path / "node", options=options) as server:
        before = {member.pid for member in server.tree()}
        client = _client(server, used_cert)
        client.create_bucket(Bucket="secure")
        body = bytes(range(256)) * 20000
        client.put_object(Bucket="secure", Key="k", Body=body)
        assert client.get_object(Bucket="secure", Key="k")["Body"].read() == body
        assert _served(server) == {first.read_text()}

        # A certificate without its key does not load: the old pair goes on.
        shutil.copy(second, used_cert)
        (server.tree()[0]).send_signal(signal.SIGHUP)
        _wait_for(lambda: server.log_tail().count("new TLS certificate refused") >= 2, server)
        assert _served(server) == {first.read_text()}

        shutil.copy(second_key, used_key)
        _wait_for(lambda: _served(server) == {second.read_text()}, server)
        renewed = _client(server, second)
        assert renewed.get_object(Bucket="secure", Key="k")["Body"].read() == body
        # The connection that was open before is served on, by the same processes.
        assert client.get_object(Bucket="secure", Key="k")["Body"].read() == body
        assert {member.pid for member in server.tree()} == before


def test_a_policy_can_ask_for_tls_and_its_version(tmp_path: pathlib.Path) -> None:
    cert, key = _make(tmp_path / "tls")
    options = {"workers": "1", "tls-cert": str(cert), "tls-key": str(key)}
    with server_process.couchestor(tmp_path / "node", options=options) as server:
        client = _client(server, cert)
        client.create_bucket(Bucket="secure")
        client.put_object(Bucket="secure", Key="k", Body=b"x")
        statement = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::secure/*",
            "Condition": {
                "Bool": {"aws:SecureTransport": True},
                "NumericGreaterThanEquals": {"s3:TlsVersion": "1.3"},
            },
        }
        client.put_bucket_policy(Bucket="secure", Policy=json.dumps({"Statement": statement}))
        answers = {}
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile=str(cert))
            context.minimum_version = context.maximum_version = version
            connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context)
            connection.request("GET", "/secure/k")
            answers[version.name] = connection.getresponse().status
            connection.close()
        assert answers == {"TLSv1_2": 403, "TLSv1_3": 200}


def _wait_for(condition: typing.Callable[[], bool], server: server_process.ServerProcess) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, server.log_tail()
        time.sleep(0.2)


def test_files_that_do_not_serve_tls_stop_the_start(tmp_path: pathlib.Path) -> None:
    cert, _ = _make(tmp_path / "first")
    _, other_key = _make(tmp_path / "second")
    node = tmp_path / "node"
    mismatch = {"tls-cert": str(cert), "tls-key": str(other_key)}
    line = node_command.only_complaint(node_command.refused_start(node, mismatch))
    assert str(cert) in line
    assert str(other_key) in line
    assert line.endswith("the key does not belong to the certificate")
    absent = {"tls-cert": str(tmp_path / "no.crt"), "tls-key": str(other_key)}
    line = node_command.only_complaint(node_command.refused_start(node, absent))
    assert "no.crt: No such file or directory" in line
    line = node_command.only_complaint(node_command.refused_start(node, {"tls-cert": str(cert)}))
    assert "tls_cert and tls_key belong together" in line
