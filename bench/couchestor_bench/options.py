"""What a command line asks for, as a plan against a server."""

from __future__ import annotations

import argparse
import secrets
import urllib.parse
from collections.abc import Mapping
from typing import Final

from couchestor_bench import flags, signing
from couchestor_bench.workload import keys, sizes
from couchestor_bench.workload import plan as plans
from couchestor_domain import errors, units

_COUNT_SECONDS: Final = 3600.0
"""What a run of a count may take."""


def plan_of(
    told: argparse.Namespace, *, endpoint: plans.Endpoint, credentials: signing.Credentials
) -> plans.Plan:
    """The plan that a command line asks for, of that server.

    Raises:
        ConfigurationError: What is wrong, and with which flag.
    """
    workload: str = told.workload
    mix = (
        flags.read("--mix", told.mix, plans.parse_mix)
        if workload == "mixed"
        else {"get" if workload == "degraded" else workload: 1.0}
    )
    distribution = flags.read("--size", told.size, sizes.parse)
    flags.read("--keys", told.keys, keys.parse)
    if workload != "multipart" and distribution.largest_bytes > plans.PUT_BYTES_MAX:
        raise errors.ConfigurationError(
            f"--size {told.size} has objects of {distribution.largest_bytes:,} bytes; one request "
            f"carries up to {plans.PUT_BYTES_MAX:,}: use `couchestor bench multipart`"
        )
    processes = told.processes
    connections = told.connections or (16 if told.rate is None else 64)
    if min(connections, told.objects, told.count or connections) < processes:
        raise errors.ConfigurationError(
            f"--processes {processes} is more than there are --connections, --objects or --count"
        )
    duration = told.duration or (10.0 if told.count is None else _COUNT_SECONDS)
    return plans.Plan(
        workload=workload,
        mix=mix,
        endpoint=endpoint,
        credentials=credentials,
        bucket=getattr(told, "bucket", flags.DEFAULT_BUCKET),
        prefix=f"bench-{secrets.token_hex(4)}/",
        sizes_text=told.size,
        keys_text=told.keys,
        keys_count=told.objects,
        part_bytes=getattr(told, "part_size", 8 * units.MIB),
        page_keys_count=getattr(told, "page", 1000),
        connections=connections,
        process_count=processes,
        per_second=told.rate,
        arrivals=told.arrivals,
        warm_up_seconds=told.warm_up,
        duration_seconds=duration,
        count=told.count,
        seed=told.seed,
        signed_payload=not told.unsigned_payload,
        timeout_seconds=told.timeout,
        ca_file=getattr(told, "ca_file", None),
        verify=not getattr(told, "insecure", False),
    )


def endpoint_of(told: argparse.Namespace, environment: Mapping[str, str]) -> plans.Endpoint:
    """Raises ConfigurationError when it is not the URL of a server."""
    return parse_endpoint(
        told.endpoint or environment.get("AWS_ENDPOINT_URL") or flags.DEFAULT_ENDPOINT
    )


def parse_endpoint(url: str) -> plans.Endpoint:
    """Raises ConfigurationError when it is not the URL of a server."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise errors.ConfigurationError(f"--endpoint {url}: {exc}") from exc
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise errors.ConfigurationError(
            f"--endpoint {url} is not the address of a server; write for example "
            f"{flags.DEFAULT_ENDPOINT}"
        )
    secure = parts.scheme == "https"
    return plans.Endpoint(parts.hostname, port or (443 if secure else 80), secure)


def credentials_of(environment: Mapping[str, str]) -> signing.Credentials:
    """Raises ConfigurationError when the environment has none."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    access_key, secret_key = (environment.get(name, "") for name in names)
    if not access_key or not secret_key:
        raise errors.ConfigurationError(
            f"set {names[0]} and {names[1]} to keys of the server; `couchestor serve` shows its "
            "own at its first start"
        )
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    return signing.Credentials(
        access_key=access_key, secret_key=secret_key, region=region or "us-east-1"
    )
