"""The real daemon for tests: every process of it, on free loopback ports, with its log at hand.

``COUCHESTOR_TEST_PEER=seaweedfs`` puts SeaweedFS in its place, which proves the tests themselves.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import time
import typing
from collections.abc import Callable, Iterator, Mapping

import boto3
import botocore.config

from couchestor_bench import peers, server_process

BUCKET: typing.Final = "proof"


def is_peer() -> bool:
    """Whether another server stands in for ours."""
    return os.environ.get("COUCHESTOR_TEST_PEER") == "seaweedfs"


@contextlib.contextmanager
def running(
    data_dir: pathlib.Path, *, options: Mapping[str, str] | None = None
) -> Iterator[server_process.ServerProcess]:
    """A daemon that is ready and has the bucket; killed at the end.

    Raises:
        RuntimeError: It was not ready in time; ends with the tail of its log.
    """
    make = server_process.seaweedfs(data_dir) if is_peer() else None
    server = make or server_process.couchestor(data_dir, options=options)
    with server:
        peers.make_bucket(server, BUCKET)
        yield server


def boto_client(
    server: server_process.ServerProcess, *, signature_version: str | None = None
) -> typing.Any:
    """A boto3 client with its defaults; no retry hides a failure."""
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.credentials.access_key,
        aws_secret_access_key=server.credentials.secret_key,
        region_name=server.credentials.region,
        config=botocore.config.Config(
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
            signature_version=signature_version,
        ),
    )


def until(condition: Callable[[], bool], *, within_seconds: float = 60.0) -> None:
    """Wait for what a node does by itself."""
    deadline = time.monotonic() + within_seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def client_environment(server: server_process.ServerProcess) -> dict[str, str]:
    """Environment in which AWS CLI, s5cmd and rclone speak to this server."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RCLONE_", "S3_"))}
    key, secret = server.credentials.access_key, server.credentials.secret_key
    return {
        **kept,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": server.credentials.region,
        "AWS_REGION": server.credentials.region,
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "S3_ENDPOINT_URL": server.endpoint,
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_PROOF_TYPE": "s3",
        "RCLONE_CONFIG_PROOF_PROVIDER": "Other",
        "RCLONE_CONFIG_PROOF_ACCESS_KEY_ID": key,
        "RCLONE_CONFIG_PROOF_SECRET_ACCESS_KEY": secret,
        "RCLONE_CONFIG_PROOF_ENDPOINT": server.endpoint,
        "RCLONE_CONFIG_PROOF_REGION": server.credentials.region,
    }
