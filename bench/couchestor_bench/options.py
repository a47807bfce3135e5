"""The command line of ``couchestor bench``, read into plans."""

from __future__ import annotations

import argparse
import secrets
import sys
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Final, NoReturn, TypeVar

from couchestor_bench import signing
from couchestor_bench.workload import keys, sizes
from couchestor_bench.workload import plan as plans
from couchestor_daemon.app import option_values
from couchestor_domain import errors, units

USAGE_EXIT: Final = 2
DEFAULT_ENDPOINT: Final = "http://127.0.0.1:9000"
DEFAULT_BUCKET: Final = "couchestor-bench"
MIX_DEFAULT: Final = "get=45,head=30,put=15,delete=10"
_SECONDS_MAX: Final = 24 * 3600.0
_COUNT_SECONDS: Final = 3600.0
_OBJECTS_MAX: Final = 10_000_000
_PART_BYTES_MIN: Final = 5 * units.MIB

WORKLOADS: Final = {
    "get": "read whole objects that are put before",
    "put": "write objects, the same keys again and again",
    "mixed": "several operations by weight",
    "list": "list pages from keys of the distribution on",
    "delete": "delete objects that are put before, each once",
    "multipart": "upload objects in parts, each upload measured as a whole",
}
_OBJECTS: Final = {"list": 10_000, "delete": 20_000, "multipart": 16}
_SIZES: Final = {"list": "0", "delete": "4KiB", "multipart": "64MiB"}

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        print(f"couchestor: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(USAGE_EXIT)


def add_load_flags(parser: argparse.ArgumentParser, workload: str) -> None:
    """What the workloads have in common, with the defaults of one of them."""
    where = parser.add_argument_group("where")
    where.add_argument(
        "--endpoint",
        metavar="URL",
        help=f"S3 server [AWS_ENDPOINT_URL, else {DEFAULT_ENDPOINT}]",
    )
    where.add_argument(
        "--bucket",
        default=DEFAULT_BUCKET,
        help="made if it is not there, and then deleted at the end [%(default)s]",
    )
    where.add_argument("--ca-file", metavar="PEM", help="trust these certificates")
    where.add_argument(
        "--insecure", action="store_true", help="trust any certificate, as between hosts of a lab"
    )
    what = parser.add_argument_group("what")
    what.add_argument(
        "--size",
        default=_SIZES.get(workload, "4KiB"),
        metavar="SIZES",
        help=f"of objects: {sizes.EXAMPLES} [%(default)s]",
    )
    what.add_argument(
        "--objects",
        type=_typed("--objects", option_values.integer(1, _OBJECTS_MAX)),
        default=_OBJECTS.get(workload, 2000),
        metavar="N",
        help="how many keys there are [%(default)s]",
    )
    what.add_argument(
        "--keys", default="uniform", metavar="KEYS", help=f"{keys.EXAMPLES} [%(default)s]"
    )
    if workload == "mixed":
        what.add_argument(
            "--mix", default=MIX_DEFAULT, metavar="WEIGHTS", help="weights [%(default)s]"
        )
    if workload in ("list", "mixed"):
        what.add_argument(
            "--page",
            type=_typed("--page", option_values.integer(1, 1000)),
            default=1000,
            metavar="N",
            help="keys of a listing [%(default)s]",
        )
    if workload == "multipart":
        what.add_argument(
            "--part-size",
            type=_typed("--part-size", option_values.size(_PART_BYTES_MIN)),
            default=8 * units.MIB,
            metavar="SIZE",
            help="of each part but the last [8MiB]",
        )
    what.add_argument(
        "--unsigned-payload",
        action="store_true",
        help="send no SHA-256 of bodies, which a server then need not verify",
    )
    what.add_argument(
        "--seed",
        type=_typed("--seed", option_values.integer(0, 2**32 - 1)),
        default=1,
        metavar="N",
        help="of all that is drawn [%(default)s]",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--connections",
        type=_typed("--connections", option_values.integer(1, 10_000)),
        metavar="N",
        help="requests in flight, at most in an open loop [16; with --rate 64]",
    )
    how.add_argument(
        "--rate",
        type=_typed("--rate", _rate),
        metavar="R",
        help="open loop: R requests a second are due whatever the server does, and latency counts "
        "from when one was due; without it each connection waits for its answer",
    )
    how.add_argument(
        "--arrivals",
        choices=("poisson", "constant"),
        default="poisson",
        help="of the open loop [%(default)s]",
    )
    how.add_argument(
        "--duration",
        type=_typed("--duration", _seconds_above_none),
        metavar="SECONDS",
        help="measured time [10; with --count a limit of 3600]",
    )
    how.add_argument(
        "--count",
        type=_typed("--count", option_values.integer(1, 10**9)),
        metavar="N",
        help="measure so many requests instead of a time",
    )
    how.add_argument(
        "--warm-up",
        type=_typed("--warm-up", _seconds),
        default=0.0 if workload == "delete" else 2.0,
        metavar="SECONDS",
        help="before the measured time, under the same load [%(default)g]",
    )
    how.add_argument(
        "--processes",
        type=_typed("--processes", option_values.integer(1, 64)),
        default=1,
        metavar="N",
        help="of the load generator, when one is the bound [%(default)s]",
    )
    how.add_argument(
        "--timeout",
        type=_typed("--timeout", _seconds_above_none),
        default=30.0,
        metavar="SECONDS",
        help="a request without an answer by then has failed [%(default)g]",
    )
    how.add_argument(
        "--keep", action="store_true", help="leave what was put, and the bucket, where they are"
    )
    how.add_argument(
        "--server-pid",
        type=_typed("--server-pid", option_values.integer(1, 2**22)),
        metavar="PID",
        help="sample CPU and memory of this process and its children [who listens at --endpoint, "
        "if that is on this machine]",
    )


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """Where results go beside the terminal."""
    output = parser.add_argument_group("output")
    output.add_argument("--label", default="", metavar="TEXT", help="name of the run in reports")
    output.add_argument("--json", metavar="FILE", help="write the result, for `bench compare`")
    output.add_argument("--html", metavar="FILE", help="write a page with plots")
    output.add_argument("--quiet", action="store_true", help="no progress on the terminal")


def plan_of(told: argparse.Namespace, environment: Mapping[str, str]) -> plans.Plan:
    """The plan that a command line asks for.

    Raises:
        ConfigurationError: What is wrong, and with which flag.
    """
    url = told.endpoint or environment.get("AWS_ENDPOINT_URL") or DEFAULT_ENDPOINT
    workload: str = told.workload
    mix = _read("--mix", told.mix, plans.parse_mix) if workload == "mixed" else {workload: 1.0}
    distribution = _read("--size", told.size, sizes.parse)
    _read("--keys", told.keys, keys.parse)
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
        endpoint=parse_endpoint(url),
        credentials=credentials_of(environment),
        bucket=told.bucket,
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
        ca_file=told.ca_file,
        verify=not told.insecure,
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
            f"--endpoint {url} is not the address of a server; write for example {DEFAULT_ENDPOINT}"
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


def _read(flag: str, text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except ValueError as exc:
        raise errors.ConfigurationError(f"{flag} {text} {exc}") from exc


def _typed(flag: str, parse: Callable[[str], T]) -> Callable[[str], T]:
    # Not argparse's own wording, which names a Python type.
    return lambda text: _read(flag, text, parse)


def _rate(text: str) -> float:
    found = _number(text)
    if not 0 < found <= 1e6:
        raise ValueError("is not a rate; write requests a second, such as 500")
    return found


def _seconds(text: str) -> float:
    found = _number(text.removesuffix("s"))
    if not 0 <= found <= _SECONDS_MAX:
        raise ValueError("is not a time; write seconds, such as 10 or 2.5")
    return found


def _seconds_above_none(text: str) -> float:
    if (found := _seconds(text)) == 0:
        raise ValueError("has to be more than none")
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0
