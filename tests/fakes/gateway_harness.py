"""A gateway over the in-memory store, in process, with boto3 clients on threads."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import boto3
import memory_store
from botocore.config import Config

from couchestor_gateway.edge import server
from couchestor_gateway.ports import credentials

Result = TypeVar("Result")
REGION = "us-east-1"
OWNERS = {
    key: credentials.Credential(
        access_key=key, secret_key=f"secret-{key}", owner=f"owner-{key}", display_name=key
    )
    for key in ("alice", "bob")
}


class Credentials:
    """Two users."""

    def find(self, access_key: str) -> credentials.Credential | None:
        return OWNERS.get(access_key)

    def user(self, user_id: str) -> credentials.User | None:
        for each in OWNERS.values():
            if each.owner == user_id:
                return credentials.User(user_id=user_id, display_name=each.display_name)
        return None

    def user_by_email(self, email: str) -> credentials.User | None:
        return None

    def is_principal(self, name: str) -> bool:
        return self.user(name) is not None


class RealClock:
    """The machine's clocks."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


class Harness:
    """A running gateway, its store and the metrics it reported."""

    def __init__(self, store: memory_store.MemoryStore) -> None:
        self.store = store
        self.seen: list[tuple[str, int, int, int]] = []
        self.running: server.RunningServer

    def record(self, operation: str, status: int, seconds: float, sent: int, got: int) -> None:
        """The metrics hook."""
        if seconds < 0:
            raise AssertionError(f"negative duration {seconds}")
        self.seen.append((operation, status, sent, got))

    def client(self, user: str = "alice", **config: Any) -> Any:
        """A boto3 client that never retries."""
        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.running.port}",
            aws_access_key_id=user,
            aws_secret_access_key=OWNERS[user].secret_key,
            region_name=REGION,
            # Said openly, because boto3 still presigns with version 2 by default.
            config=Config(
                signature_version="s3v4",
                retries={"max_attempts": 0},
                s3={"addressing_style": "path"},
                **config,
            ),
        )


async def call(function: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Result:
    """Run a blocking client call beside the server."""
    return await asyncio.to_thread(function, *args, **kwargs)


@contextlib.asynccontextmanager
async def running(
    limits: server.ServerLimits | None = None,
    *,
    part_bytes_min: int = 16,
    access_log: bool = True,
) -> AsyncIterator[Harness]:
    """Serve on a free loopback port for the body of the block."""
    store = memory_store.MemoryStore(piece_bytes=300_000, part_bytes_min=part_bytes_min)
    harness = Harness(store)
    gateway = server.Gateway(
        store,
        store,
        store,
        Credentials(),
        region=REGION,
        clock=RealClock(),
        limits=limits,
        metrics=harness.record,
        access_log=access_log,
    )
    harness.running = await gateway.start("127.0.0.1", 0)
    try:
        yield harness
    finally:
        await harness.running.stop(2.0)
