"""What the operator is told: one table of options, and the frozen value made of them."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

from couchestor_domain import errors
from couchestor_operator.adapters import prometheus_query
from couchestor_operator.app import logs, pages
from couchestor_operator.control import selector
from couchestor_operator.resources import disk_pool

RESOURCES, REST = "resources", "rest"
METRICS_ADDRESS: Final = pages.Address("", 8080)
HEALTH_ADDRESS: Final = pages.Address("", 8081)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting. The meaning of each is told once, in ``OPTIONS``."""

    prometheus_url: str
    prometheus_preset: str = "openebs"
    metrics_query: str | None = None
    metrics_volume_label: str = prometheus_query.OPENEBS.volume_label
    prometheus_token_file: pathlib.Path | None = None
    prometheus_ca_file: pathlib.Path | None = None
    volume_manager: str = RESOURCES
    mayastor_namespace: str = "mayastor"
    disk_pool_version: str = disk_pool.VERSIONS[0]
    mayastor_url: str | None = None
    mayastor_token_file: pathlib.Path | None = None
    mayastor_ca_file: pathlib.Path | None = None
    max_concurrent_migrations: int = 2
    migration_timeout_minutes: int | None = None
    sync_poll_interval_seconds: float = 5.0
    pass_interval_seconds: float = 30.0
    pass_timeout_seconds: float = 300.0
    dry_run: bool = False
    preservation_mode: bool = False
    node_selector: selector.Selector | None = None
    stripe_policy: str | None = None
    stripe_stock: int = 2
    stripe_interval_seconds: float = 30.0
    node_grace_seconds: float = 300.0
    node_port: int = 9444
    node_tls: bool = True
    node_token_file: pathlib.Path | None = None
    node_ca_file: pathlib.Path | None = None
    kubeconfig: pathlib.Path | None = None
    kube_context: str | None = None
    lease_namespace: str | None = None
    lease_name: str = "couchestor-operator"
    metrics_addr: pages.Address = METRICS_ADDRESS
    health_addr: pages.Address = HEALTH_ADDRESS
    log_level: str = "info"
    log_json: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting: ``name`` gives ``--na-me`` and the variable ``NA_ME``."""

    name: str
    metavar: str
    help: str
    parse: Callable[[str], object]

    @property
    def flag(self) -> str:
        """Name on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Name in the environment."""
        return self.name.upper()


def _text(text: str) -> str:
    if not text:
        raise ValueError("it is empty")
    return text


def _number(minimum: float, maximum: float, *, whole: bool = True) -> Callable[[str], float]:
    def parse(text: str) -> float:
        kind = "a whole number" if whole else "a number"
        try:
            number = int(text) if whole else float(text)
        except ValueError:
            raise ValueError(f"it is not {kind}") from None
        if not minimum <= number <= maximum:
            raise ValueError(f"it must be {kind} from {minimum:g} to {maximum:g}")
        return number

    return parse


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"it must be one of {', '.join(words)}")
        return text.lower()

    return parse


def _switch(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise ValueError("it must be true or false")


def _selector(text: str) -> selector.Selector:
    labels: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        if not key or not equals or key in labels:
            raise ValueError("it must be labels such as storage=couchestor, or several by commas")
        labels[key] = value
    return selector.Selector(match_labels=labels)


def _address(text: str) -> pages.Address:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("it must be HOST:PORT, or :PORT for every address")
    return pages.Address(host.removeprefix("[").removesuffix("]"), int(port))


OPTIONS: Final = (
    Option(
        name="prometheus_url",
        metavar="URL",
        help="Prometheus that knows how much volumes are used, such as"
        " http://prometheus.monitoring:9090",
        parse=_text,
    ),
    Option(
        name="prometheus_preset",
        metavar="NAME",
        help="whose metrics of volumes it has: openebs (openebs_volume_iops) or mayastor"
        " (volume_num_read_ops, volume_num_write_ops); default openebs",
        parse=_one_of(*prometheus_query.PRESETS),
    ),
    Option(
        name="metrics_query",
        metavar="PROMQL",
        help="in place of a preset: an expression that yields the IOPS of each volume, with $window"
        " where the sampling window belongs",
        parse=_text,
    ),
    Option(
        name="metrics_volume_label",
        metavar="LABEL",
        help="label of that expression that names the volume; default volume",
        parse=_text,
    ),
    Option(
        name="prometheus_token_file",
        metavar="FILE",
        help="bearer token for Prometheus, read again for each query",
        parse=pathlib.Path,
    ),
    Option(
        name="prometheus_ca_file",
        metavar="FILE",
        help="certificates that Prometheus is trusted by, in place of the system's",
        parse=pathlib.Path,
    ),
    Option(
        name="volume_manager",
        metavar="KIND",
        help="who owns the volumes: resources (MayastorVolume and DiskPool, of Mayastor's older"
        " control plane) or rest (Mayastor's REST API v0); default resources",
        parse=_one_of(RESOURCES, REST),
    ),
    Option(
        name="mayastor_namespace",
        metavar="NAME",
        help="namespace of MayastorVolumes and DiskPools; default mayastor",
        parse=_text,
    ),
    Option(
        name="disk_pool_version",
        metavar="VERSION",
        help=f"of DiskPools, which of {', '.join(disk_pool.VERSIONS)} the cluster serves; default"
        f" {disk_pool.VERSIONS[0]}",
        parse=_one_of(*disk_pool.VERSIONS),
    ),
    Option(
        name="mayastor_url",
        metavar="URL",
        help="Mayastor's REST API, such as http://mayastor-api-rest.mayastor:8081",
        parse=_text,
    ),
    Option(
        name="mayastor_token_file",
        metavar="FILE",
        help="bearer token for Mayastor's REST API, read again for each call",
        parse=pathlib.Path,
    ),
    Option(
        name="mayastor_ca_file",
        metavar="FILE",
        help="certificates that Mayastor's REST API is trusted by, in place of the system's",
        parse=pathlib.Path,
    ),
    Option(
        name="max_concurrent_migrations",
        metavar="COUNT",
        help="migrations under way at once, of all policies together; default 2",
        parse=_number(1, 1000),
    ),
    Option(
        name="migration_timeout_minutes",
        metavar="MINUTES",
        help="no migration may take longer, whatever its policy allows; by default what that"
        " allows",
        parse=_number(1, 525_600),
    ),
    Option(
        name="sync_poll_interval_seconds",
        metavar="SECONDS",
        help="between two looks at migrations under way; default 5",
        parse=_number(0.1, 3600, whole=False),
    ),
    Option(
        name="pass_interval_seconds",
        metavar="SECONDS",
        help="between two passes over all policies and volumes; default 30",
        parse=_number(0.1, 86_400, whole=False),
    ),
    Option(
        name="pass_timeout_seconds",
        metavar="SECONDS",
        help="a pass that takes longer is given up, and the next one made; default 300",
        parse=_number(1, 86_400, whole=False),
    ),
    Option(
        name="dry_run",
        metavar="BOOL",
        help="decide and tell, and begin nothing, as if every policy were in dry run",
        parse=_switch,
    ),
    Option(
        name="preservation_mode",
        metavar="BOOL",
        help="keep the old replica of a volume beside the new one",
        parse=_switch,
    ),
    Option(
        name="node_selector",
        metavar="LABELS",
        help="assign stripe groups to nodes with these labels, such as storage=couchestor; by"
        " default none are assigned",
        parse=_selector,
    ),
    Option(
        name="stripe_policy",
        metavar="NAME",
        help="ErasureCodingPolicy that stripe groups are made under; needed by --node-selector",
        parse=_text,
    ),
    Option(
        name="stripe_stock",
        metavar="COUNT",
        help="stripe groups that each writer has ahead of need; default 2",
        parse=_number(1, 64),
    ),
    Option(
        name="stripe_interval_seconds",
        metavar="SECONDS",
        help="between two passes over stripe groups; default 30",
        parse=_number(0.1, 86_400, whole=False),
    ),
    Option(
        name="node_grace_seconds",
        metavar="SECONDS",
        help="a node is lost when it cannot be reached and Kubernetes has it not ready for so long;"
        " default 300",
        parse=_number(0, 604_800, whole=False),
    ),
    Option(
        name="node_port",
        metavar="PORT",
        help="of the node API, at the internal address of each node; default 9444",
        parse=_number(1, 65_535),
    ),
    Option(
        name="node_tls",
        metavar="BOOL",
        help="whether nodes are spoken to over TLS; default true",
        parse=_switch,
    ),
    Option(
        name="node_token_file",
        metavar="FILE",
        help="bearer token for nodes, read again for each call",
        parse=pathlib.Path,
    ),
    Option(
        name="node_ca_file",
        metavar="FILE",
        help="certificates that nodes are trusted by, in place of the system's",
        parse=pathlib.Path,
    ),
    Option(
        name="kubeconfig",
        metavar="FILE",
        help="how to reach the Kubernetes API; by default as the pod's service account",
        parse=pathlib.Path,
    ),
    Option(
        name="kube_context",
        metavar="NAME",
        help="context of the kubeconfig; by default its current one",
        parse=_text,
    ),
    Option(
        name="lease_namespace",
        metavar="NAME",
        help="namespace of the Lease that one operator holds; by default the pod's own, else"
        " default",
        parse=_text,
    ),
    Option(
        name="lease_name",
        metavar="NAME",
        help="name of that Lease; default couchestor-operator",
        parse=_text,
    ),
    Option(
        name="metrics_addr",
        metavar="HOST:PORT",
        help="where /metrics is served; default :8080",
        parse=_address,
    ),
    Option(
        name="health_addr",
        metavar="HOST:PORT",
        help="where /healthz and /readyz are served; default :8081",
        parse=_address,
    ),
    Option(
        name="log_level",
        metavar="LEVEL",
        help="debug, info, warning or error; default info",
        parse=_one_of(*logs.LEVELS),
    ),
    Option(
        name="log_json",
        metavar="BOOL",
        help="write log lines as JSON objects",
        parse=_switch,
    ),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """In one line, as every mistake in a setting."""
        raise errors.ConfigurationError(f"{message}; see {self.prog} --help")


def from_words(words: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """The settings: a flag wins over the environment, that over the default.

    Raises:
        ConfigurationError: one is missing or cannot be; the message names the place and what to do.
    """
    given = vars(_parser().parse_args(words))
    values: dict[str, Any] = {}
    for option in OPTIONS:
        text, place = given[option.name], option.flag
        if text is None:
            text, place = environment.get(option.variable), option.variable
        # A variable that is set to nothing is how manifests leave it out.
        if text is None or (text == "" and place == option.variable):
            continue
        try:
            values[option.name] = option.parse(text)
        except ValueError as exc:
            raise errors.ConfigurationError(f"{place} is {text!r}: {exc}") from None
    if "prometheus_url" not in values:
        raise errors.ConfigurationError(
            "nothing says where Prometheus is: give --prometheus-url or PROMETHEUS_URL, such as"
            " http://prometheus.monitoring:9090"
        )
    settings = Settings(**values)
    if (settings.volume_manager == REST) != (settings.mayastor_url is not None):
        raise errors.ConfigurationError(
            "--volume-manager rest needs --mayastor-url, and that is of no use without it: give"
            " both or none"
        )
    if (settings.node_selector is None) != (settings.stripe_policy is None):
        raise errors.ConfigurationError(
            "--node-selector needs --stripe-policy, and that is of no use without it: give both or"
            " none"
        )
    return settings


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=logs.PROGRAM,
        description="Moves replicas of volumes between pools of tiers, as StoragePolicies say.",
        epilog="Every option can be given in the environment, too, by its name in capitals:"
        " PROMETHEUS_URL, LOG_JSON.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{logs.PROGRAM} {_version()}")
    for option in OPTIONS:
        told: dict[str, Any] = {"metavar": option.metavar, "help": option.help.replace("%", "%%")}
        if option.parse is _switch:
            told |= {"nargs": "?", "const": "true"}
        parser.add_argument(option.flag, dest=option.name, **told)
    return parser


def _version() -> str:
    try:
        return importlib.metadata.version("couchestor")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
