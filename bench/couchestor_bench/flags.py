"""The flags of ``couchestor bench``: names, defaults, and how their values are read."""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Callable
from typing import Final, NoReturn, TypeVar

from couchestor_bench.workload import keys, sizes
from couchestor_daemon.app import option_values
from couchestor_domain import errors, geometry, units

USAGE_EXIT: Final = 2
DEFAULT_ENDPOINT: Final = "http://127.0.0.1:9000"
DEFAULT_BUCKET: Final = "couchestor-bench"
MIX_DEFAULT: Final = "get=45,head=30,put=15,delete=10"
_SECONDS_MAX: Final = 24 * 3600.0
_OBJECTS_MAX: Final = 10_000_000
_PART_BYTES_MIN: Final = 5 * units.MIB

WORKLOADS: Final = {
    "get": "read whole objects that are put before",
    "put": "write objects, the same keys again and again",
    "mixed": "several operations by weight",
    "list": "list pages from keys of the distribution on",
    "delete": "delete objects that are put before, each once",
    "multipart": "upload objects in parts, each upload measured as a whole",
    "degraded": "read from a node of its own, before and after devices are taken away",
}
_OBJECTS: Final = {"list": 10_000, "delete": 20_000, "multipart": 16, "degraded": 256}
_SIZES: Final = {"list": "0", "multipart": "64MiB", "degraded": "1MiB"}

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        print(f"couchestor: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(USAGE_EXIT)


def add_load_flags(parser: argparse.ArgumentParser, workload: str) -> None:
    """What the workloads have in common, with the defaults of one of them."""
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


def add_server_flags(parser: argparse.ArgumentParser) -> None:
    """Which server it is, and what is left there."""
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
    where.add_argument(
        "--keep", action="store_true", help="leave what was put, and the bucket, where they are"
    )
    where.add_argument(
        "--server-pid",
        type=_typed("--server-pid", option_values.integer(1, 2**22)),
        metavar="PID",
        help="sample CPU and memory of this process and its children [who listens at --endpoint, "
        "if that is on this machine]",
    )


def add_degraded_flags(parser: argparse.ArgumentParser) -> None:
    """What kind of node, and what is taken from it."""
    node = parser.add_argument_group("node")
    node.add_argument(
        "--coding",
        type=_typed("--coding", parse_coding),
        default=geometry.StripeGeometry(4, 2),
        metavar="K+M",
        help="data and parity shards of its stripes, on as many folders [4+2]",
    )
    node.add_argument(
        "--away",
        type=_typed("--away", option_values.integer(1, 64)),
        metavar="N",
        help="how many of its devices are taken away [M]",
    )
    node.add_argument(
        "--folder", type=pathlib.Path, help="where it keeps its data [where temporary files are]"
    )


def add_codec_flags(parser: argparse.ArgumentParser) -> None:
    """What of `bench codec`."""
    parser.add_argument(
        "--coding",
        type=_typed("--coding", lambda text: [parse_coding(each) for each in text.split(",")]),
        default=[geometry.StripeGeometry(4, 2), geometry.StripeGeometry(8, 3)],
        metavar="K+M,...",
        help="data and parity shards [4+2,8+3]",
    )
    parser.add_argument(
        "--stripe",
        type=_typed("--stripe", _sizes(1)),
        default=[256 * units.KIB, 4 * units.MIB],
        metavar="SIZE,...",
        help="user bytes of a stripe [256KiB,4MiB]",
    )
    _add_seconds_flag(parser, 0.5)


def add_device_flags(parser: argparse.ArgumentParser) -> None:
    """What of `bench devices`."""
    parser.add_argument("folder", type=pathlib.Path, help="on the medium to be measured")
    parser.add_argument(
        "--size",
        type=_typed("--size", _sizes(units.BLOCK_BYTES)),
        default=[4 * units.KIB, 128 * units.KIB, units.MIB],
        metavar="SIZE,...",
        help="of each command [4KiB,128KiB,1MiB]",
    )
    parser.add_argument(
        "--depth",
        type=_typed("--depth", _integers(1, 64)),
        default=[1, 8],
        metavar="N,...",
        help="commands at once [1,8]",
    )
    parser.add_argument(
        "--space",
        type=_typed("--space", option_values.size(64 * units.MIB)),
        default=512 * units.MIB,
        metavar="SIZE",
        help="what is written at most at any time [512MiB]",
    )
    _add_seconds_flag(parser, 1.0)


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """Where results go beside the terminal."""
    output = parser.add_argument_group("output")
    output.add_argument("--label", default="", metavar="TEXT", help="name of the run in reports")
    output.add_argument("--json", metavar="FILE", help="write the result, for `bench compare`")
    output.add_argument("--html", metavar="FILE", help="write a page with plots")
    output.add_argument("--quiet", action="store_true", help="no progress on the terminal")


def parse_coding(text: str) -> geometry.StripeGeometry:
    """``4+2``: data and parity shards. Raises ValueError when it is none."""
    data, plus, parity = text.partition("+")
    if not plus or not data.strip().isdecimal() or not parity.strip().isdecimal():
        raise ValueError("is no coding; write data and parity shards, such as 4+2")
    try:
        return geometry.StripeGeometry(int(data), int(parity))
    except errors.InvalidEcConfigurationError as exc:
        raise ValueError(f"cannot be: {exc.message}") from exc


def read(flag: str, text: str, parse: Callable[[str], T]) -> T:
    """The value of a flag. Raises ConfigurationError with its name when it cannot be read."""
    try:
        return parse(text)
    except ValueError as exc:
        raise errors.ConfigurationError(f"{flag} {text} {exc}") from exc


def _typed(flag: str, parse: Callable[[str], T]) -> Callable[[str], T]:
    # Not argparse's own wording, which names a Python type.
    return lambda text: read(flag, text, parse)


def _add_seconds_flag(parser: argparse.ArgumentParser, usual: float) -> None:
    parser.add_argument(
        "--seconds",
        type=_typed("--seconds", _seconds_above_none),
        default=usual,
        metavar="SECONDS",
        help="time for each row [%(default)g]",
    )


def _sizes(multiple: int) -> Callable[[str], list[int]]:
    parse = option_values.size(multiple, multiple=multiple)
    return lambda text: [parse(each) for each in text.split(",")]


def _integers(least: int, most: int) -> Callable[[str], list[int]]:
    parse = option_values.integer(least, most)
    return lambda text: [parse(each) for each in text.split(",")]


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
