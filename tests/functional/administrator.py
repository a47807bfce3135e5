"""Somebody with the root credentials of a node, who makes tenants and users over its admin port."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

import boto3
import botocore.config
from botocore import auth, awsrequest
from botocore import credentials as boto_credentials

from couchestor_bench import server_process
from couchestor_daemon.app import admin_client
from couchestor_gateway.protocol import admin_signature


class Keys(NamedTuple):
    """An access key and its secret."""

    access_key: str
    secret_key: str


class Answer(NamedTuple):
    """Status and document."""

    status: int
    document: dict[str, Any]

    @property
    def error(self) -> tuple[str, str]:
        """Code and message."""
        found = self.document["error"]
        return found["code"], found["message"]


class Administrator:
    """Each request on a connection of its own, so that any worker answers it."""

    def __init__(self, server: server_process.ServerProcess) -> None:
        self._server = server
        self.port = int(server.command[server.command.index("--admin-port") + 1])

    def send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        sent: bytes | None = None,
    ) -> Answer:
        """A request, signed by root unless other headers are given.

        Args:
            sent: A body in place of the one that is signed.
        """
        if headers is None:
            headers = self.signed(method, path, body)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body=body if sent is None else sent, headers=headers)
            response = connection.getresponse()
            return Answer(response.status, json.loads(response.read()))
        finally:
            connection.close()

    def signed(
        self, method: str, path: str, body: bytes = b"", *, keys: Keys | None = None
    ) -> dict[str, str]:
        """Headers of a request."""
        root = self._server.credentials
        return admin_signature.headers_for(
            method,
            path,
            body,
            host=f"127.0.0.1:{self.port}",
            access_key=root.access_key if keys is None else keys.access_key,
            secret_key=root.secret_key if keys is None else keys.secret_key,
            now_seconds=int(time.time()),
        )

    def ask(self, method: str, *parts: str, **document: Any) -> dict[str, Any]:
        """The document that a request is answered with."""
        body = json.dumps(document).encode() if document else b""
        answer = self.send(method, admin_client.path_of(*parts), body)
        assert answer.status < 300, answer
        return answer.document

    def tenant(self, name: str) -> str:
        """Make a tenant; its id."""
        return str(self.ask("POST", "tenants", name=name)["id"])

    def user(self, tenant: str, name: str, *, is_root: bool = False) -> Keys:
        """Make a user with an access key."""
        self.ask("POST", "tenants", tenant, "users", name=name, is_root=is_root)
        return self.key(tenant, name)

    def key(self, tenant: str, user: str) -> Keys:
        """Make an access key."""
        made = self.ask("POST", "tenants", tenant, "users", user, "keys")
        return Keys(made["access_key"], made["secret_key"])

    def attach(self, tenant: str, user: str, name: str, *statements: Mapping[str, Any]) -> None:
        """Attach a policy."""
        path = admin_client.path_of("tenants", tenant, "users", user, "policies", name)
        document = json.dumps({"Version": "2012-10-17", "Statement": statements}).encode()
        answer = self.send("PUT", path, document)
        assert answer.status == 200, answer


def client(server: server_process.ServerProcess, keys: Keys) -> Any:
    """A boto3 client; no retry hides a failure."""
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        region_name="us-east-1",
        config=botocore.config.Config(
            retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}
        ),
    )


def status(
    server: server_process.ServerProcess,
    keys: Keys,
    path: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
) -> int:
    """The answer to one request on a connection of its own."""
    return response(server, keys, path, method=method, body=body)[0]


def response(
    server: server_process.ServerProcess,
    keys: Keys,
    path: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body of it."""
    url = f"{server.endpoint}{path}"
    request = awsrequest.AWSRequest(method, url, data=body)
    signer = auth.S3SigV4Auth(
        boto_credentials.Credentials(keys.access_key, keys.secret_key), "s3", "us-east-1"
    )
    signer.add_auth(request)
    sent = urllib.request.Request(
        url, method=method, headers=dict(request.headers.items()), data=body
    )
    try:
        with urllib.request.urlopen(sent, timeout=30) as answer:
            return int(answer.status), dict(answer.headers), answer.read()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, dict(refusal.headers), refusal.read()
