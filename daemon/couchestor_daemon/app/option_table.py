"""The one table of settings: flags, environment names, TOML keys, help, types and limits.

Precedence: flag, then environment, then configuration file, then default. Whatever is wrong is
said in one line that names the place it came from.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from couchestor_daemon.app import option_checks, option_values
from couchestor_daemon.app import settings as settings_module
from couchestor_domain import errors, units

ENVIRONMENT_PREFIX: Final = "COUCHESTOR_"
SYSTEM_CONFIG_PATH: Final = pathlib.Path("/etc/couchestor/couchestor.toml")

# Names that share our prefix but are not settings of the node.
_OTHER_VARIABLES: Final = {
    "CONFIG",
    "ROOT_ACCESS_KEY",
    "ROOT_SECRET",
    "ROOT_SECRET_KEY",
}
_OTHER_PREFIXES: Final = ("BENCH_", "OPERATOR_", "TEST_")
# Kubernetes describes a Service called "couchestor" to every pod as COUCHESTOR_PORT=tcp://... .
_SERVICE_LINK = re.compile(r"(?:\w+_)?(?:SERVICE_(?:HOST|PORT\w*)|PORT_\d+_\w+)")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting: ``name`` gives ``--na-me``, ``COUCHESTOR_NA_ME`` and the TOML key."""

    name: str
    group: str
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
        return ENVIRONMENT_PREFIX + self.name.upper()


_STORE, _CODING, _SERVING, _USERS, _WATCHING = (
    "storage",
    "erasure coding",
    "serving",
    "users",
    "observing",
)


def _o(
    name: str, group: str, metavar: str, help_text: str, parse: Callable[[str], object]
) -> Option:
    return Option(name=name, group=group, metavar=metavar, help=help_text, parse=parse)


OPTIONS: Final[tuple[Option, ...]] = (
    _o(
        "data_dir",
        _STORE,
        "DIR",
        "folder for the index, keys and embedded devices",
        option_values.path,
    ),
    _o(
        "devices",
        _STORE,
        "PATH[,PATH...]",
        "folders to store on, each on a medium that can fail alone; repeatable. "
        "None: six folders below the data directory",
        option_values.paths,
    ),
    _o(
        "device_capacity_bytes",
        _STORE,
        "SIZE",
        "how much of each device's folder to use; 0: decide from free space",
        option_values.size(units.MIB, zero=True),
    ),
    _o(
        "zone_bytes",
        _STORE,
        "SIZE",
        "size of an append-only zone, fixed when a device is formatted",
        option_values.size(units.MIB, multiple=units.BLOCK_BYTES),
    ),
    _o("data_shards", _CODING, "K", "data shards of a stripe", option_values.integer(1, 32)),
    _o(
        "parity_shards",
        _CODING,
        "M",
        "parity shards: how many devices may be lost at once",
        option_values.integer(1, 16),
    ),
    _o(
        "journal_replicas",
        _CODING,
        "N",
        "devices each batch of the log is copied to; 0: M + 1",
        option_values.integer(0, 16),
    ),
    _o(
        "codec",
        _CODING,
        "NAME",
        "rs: Reed-Solomon; lrc: local reconstruction, for M of 2 at most: with more of them some "
        "M devices could not be lost together",
        option_values.choice("rs", "lrc"),
    ),
    _o(
        "journal_threshold_bytes",
        _CODING,
        "SIZE",
        "objects below this size, and the ends of longer ones, are copied to the log whole",
        option_values.size(units.BLOCK_BYTES),
    ),
    _o(
        "stripe_bytes",
        _CODING,
        "SIZE",
        "data bytes of a full stripe",
        option_values.size(64 * units.KIB, multiple=units.BLOCK_BYTES),
    ),
    _o(
        "compression_saving_percent",
        _STORE,
        "PERCENT",
        "store a small payload compressed where that saves so much; 101: never",
        option_values.integer(1, 101),
    ),
    _o(
        "destage_log_bytes",
        _STORE,
        "SIZE",
        "move small payloads from the log to stripes when the log holds more than this",
        option_values.size(0),
    ),
    _o(
        "destage_age_seconds",
        _STORE,
        "SECONDS",
        "or has held them for so long",
        option_values.integer(0, 30 * 24 * 3600),
    ),
    _o(
        "destage_idle_seconds",
        _STORE,
        "SECONDS",
        "or nothing was written for so long",
        option_values.integer(1, 24 * 3600),
    ),
    _o(
        "destage_on_stop",
        _STORE,
        "",
        "move all of them before an orderly stop ends, as far as the time to drain allows",
        option_values.boolean,
    ),
    _o(
        "reclaim_dead_percent",
        _STORE,
        "PERCENT",
        "move what lives in a stripe group together with others when so much of it is dead",
        option_values.integer(10, 100),
    ),
    _o(
        "reclaim_free_percent",
        _STORE,
        "PERCENT",
        "and the group where that gains most while less than this of the zones is free",
        option_values.integer(0, 90),
    ),
    _o(
        "balance_gap_percent",
        _STORE,
        "PERCENT",
        "move shards from full to empty devices when their used zones differ by more; 100: never",
        option_values.integer(1, 100),
    ),
    _o(
        "checkpoint_log_bytes",
        _STORE,
        "SIZE",
        "write a checkpoint of the index after this much of log; a recovery replays what follows",
        option_values.size(64 * units.KIB),
    ),
    _o(
        "checkpoint_log_percent",
        _STORE,
        "PERCENT",
        "but not before the log has grown by this part of the last checkpoint",
        option_values.integer(0, 10_000),
    ),
    _o(
        "zone_grace_seconds",
        _STORE,
        "SECONDS",
        "how long a zone is left alone after nothing refers to it, for reads under way",
        option_values.seconds_from(1),
    ),
    _o(
        "room_wait_seconds",
        _STORE,
        "SECONDS",
        "how long a write waits at most when no zone is free but some are on their way back",
        option_values.seconds_from(0),
    ),
    _o(
        "background_bytes_per_second",
        _STORE,
        "SIZE",
        "bytes a second that background work may read and write at most; 0: no limit but what "
        "requests leave",
        option_values.size(64 * units.KIB, zero=True),
    ),
    _o(
        "background_floor_bytes_per_second",
        _STORE,
        "SIZE",
        "bytes a second it is always granted, however busy the node is, so that it ends",
        option_values.size(64 * units.KIB),
    ),
    _o(
        "rebuild_delay_seconds",
        _STORE,
        "SECONDS",
        "how long a device may be away before what it held is rebuilt on others",
        option_values.integer(0, 366 * 24 * 3600),
    ),
    _o(
        "scrub_period_seconds",
        _STORE,
        "SECONDS",
        "everything on media is read and verified once in this time; 0: never",
        option_values.integer(0, 366 * 24 * 3600),
    ),
    _o(
        "lifecycle_interval_seconds",
        _STORE,
        "SECONDS",
        "how often buckets with lifecycle rules are searched for what is due",
        option_values.integer(1, 7 * 24 * 3600),
    ),
    _o(
        "lifecycle_debug_day_seconds",
        _STORE,
        "SECONDS",
        "for tests only: how long a day of lifecycle rules is, nothing being rounded to midnight; "
        "0: a real day",
        option_values.seconds,
    ),
    _o(
        "device_deadline_seconds",
        _STORE,
        "SECONDS",
        "a device that leaves a command without an end for so long is taken out of service",
        option_values.positive_seconds,
    ),
    _o(
        "suspect_window_seconds",
        _STORE,
        "SECONDS",
        "devices are compared with each other over so long; one that stands out five times is "
        "tested; 0: never",
        option_values.seconds,
    ),
    _o(
        "suspect_latency_ratio",
        _STORE,
        "N",
        "a device stands out when its commands take so many times as long as on the others",
        option_values.integer(2, 1000),
    ),
    _o(
        "suspect_latency_floor_seconds",
        _STORE,
        "SECONDS",
        "and at least this in the mean",
        option_values.positive_seconds,
    ),
    _o(
        "host",
        _SERVING,
        "ADDRESS",
        "address S3 is served on; 0.0.0.0: all networks",
        option_values.host,
    ),
    _o(
        "port",
        _SERVING,
        "PORT",
        "port S3 is served on; 0: any free one",
        option_values.integer(0, 65535),
    ),
    _o(
        "workers",
        _SERVING,
        "N",
        "gateway processes sharing the port; 0: one per core",
        option_values.integer(0, 1024),
    ),
    _o("region", _SERVING, "NAME", "region clients sign their requests for", option_values.region),
    _o(
        "domain",
        _SERVING,
        "NAME",
        "also answer bucket.NAME (virtual-host addressing); empty: paths only",
        option_values.domain,
    ),
    _o(
        "signature_v2",
        _SERVING,
        "",
        "take requests signed by Signature Version 2 (HMAC-SHA1), too, from clients that know no "
        "other; it does not cover bodies and most of a query",
        option_values.boolean,
    ),
    _o(
        "bucket_log_seconds",
        _SERVING,
        "SECONDS",
        "how long a worker holds lines of a bucket's log before it writes them as an object",
        option_values.positive_seconds,
    ),
    _o(
        "notification_targets",
        _SERVING,
        "NAME=URL[,NAME=URL...]",
        "targets that buckets may have notices of changes sent to, by name: a URL that takes them "
        "as POST; repeatable",
        option_values.targets,
    ),
    _o(
        "notification_queue_max",
        _SERVING,
        "COUNT",
        "notices kept for one target that does not take them; those of further changes are lost "
        "and counted",
        option_values.integer(1, 100_000_000),
    ),
    _o("tls_cert", _SERVING, "FILE", "certificate chain in PEM; serves HTTPS", option_values.path),
    _o("tls_key", _SERVING, "FILE", "private key of the certificate in PEM", option_values.path),
    _o(
        "stall_seconds",
        _SERVING,
        "SECONDS",
        "how long a client may neither send nor take a byte during a transfer",
        option_values.positive_seconds,
    ),
    _o(
        "drain_seconds",
        _SERVING,
        "SECONDS",
        "how long running requests may finish when stopping",
        option_values.seconds,
    ),
    _o(
        "credentials_file",
        _USERS,
        "FILE",
        "root access key, made at first start; DATA_DIR/credentials.json unless set",
        option_values.path,
    ),
    _o(
        "users_file",
        _USERS,
        "FILE",
        "users beside root and their keys, in TOML; followed while serving",
        option_values.path,
    ),
    _o(
        "master_key_file",
        _USERS,
        "FILE",
        "keys that secrets in the store are sealed with, made at first start; "
        "DATA_DIR/master-key.json unless set",
        option_values.path,
    ),
    _o(
        "admin_host",
        _USERS,
        "ADDRESS",
        "loopback address where tenants, users and quotas are administered",
        option_values.host,
    ),
    _o(
        "admin_port",
        _USERS,
        "PORT",
        "port of it; 0: any free one",
        option_values.integer(0, 65535),
    ),
    _o(
        "metrics_host", _WATCHING, "ADDRESS", "address of /metrics (Prometheus)", option_values.host
    ),
    _o(
        "metrics_port",
        _WATCHING,
        "PORT",
        "port of /metrics; 0: any free one",
        option_values.integer(0, 65535),
    ),
    _o(
        "health_host",
        _WATCHING,
        "ADDRESS",
        "address of /livez, /readyz and /status",
        option_values.host,
    ),
    _o(
        "health_port",
        _WATCHING,
        "PORT",
        "port of /livez, /readyz and /status; 0: any free one",
        option_values.integer(0, 65535),
    ),
    _o(
        "access_log",
        _WATCHING,
        "",
        "log one line for every request, not only for those that failed on our side",
        option_values.boolean,
    ),
    _o("log_json", _WATCHING, "", "log one JSON object a line", option_values.boolean),
    _o(
        "log_level",
        _WATCHING,
        "LEVEL",
        "debug, info, warning or error",
        option_values.choice("debug", "info", "warning", "error"),
    ),
)
BY_NAME: Final = {option.name: option for option in OPTIONS}


def default_text(option: Option) -> str:
    """The default as a person would write it."""
    value = getattr(settings_module.Settings(), option.name)
    if value is None or value in ((), ""):
        return ""
    if isinstance(value, bool):
        return "false" if not value else "true"
    if option.name.endswith(("_bytes", "_bytes_per_second")) and value:
        for unit, size in (("MiB", units.MIB), ("KiB", units.KIB)):
            if value % size == 0:
                return f"{value // size}{unit}"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).replace(str(pathlib.Path.home()), "~")


def add_flags(parser: argparse.ArgumentParser, *, groups: Iterable[str] | None = None) -> None:
    """Add ``--config`` and a flag for each option to a parser; values stay text."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"TOML file of settings [{SYSTEM_CONFIG_PATH}, if it exists]",
    )
    wanted = None if groups is None else set(groups)
    sections: dict[str, argparse._ArgumentGroup] = {}
    for option in OPTIONS:
        if wanted is not None and option.group not in wanted:
            continue
        if option.group not in sections:
            sections[option.group] = parser.add_argument_group(option.group)
        section, default = sections[option.group], default_text(option)
        text = f"{option.help}{f' [{default}]' if default else ''}".replace("%", "%%")
        if option.parse is option_values.boolean:
            section.add_argument(
                option.flag,
                dest=option.name,
                nargs="?",
                const="true",
                metavar="BOOL",
                help=text,
            )
        elif option.parse in (option_values.paths, option_values.targets):
            section.add_argument(
                option.flag,
                dest=option.name,
                action="append",
                metavar=option.metavar,
                help=text,
            )
        else:
            section.add_argument(option.flag, dest=option.name, metavar=option.metavar, help=text)


def load(
    arguments: Mapping[str, object],
    environment: Mapping[str, str],
    *,
    system_config: pathlib.Path = SYSTEM_CONFIG_PATH,
) -> settings_module.Settings:
    """Settings from parsed flags (text or None by option name), environment and file.

    Raises:
        ConfigurationError: one line naming the value, what is wrong and where it was set.
    """
    given: dict[str, tuple[str, str]] = {}
    config = arguments.get("config") or environment.get(ENVIRONMENT_PREFIX + "CONFIG")
    if config:
        given.update(_from_file(pathlib.Path(str(config)).expanduser()))
    else:
        try:
            present = system_config.exists()
        except OSError as exc:
            raise errors.ConfigurationError(
                f"cannot read {system_config}: {exc.strerror}; name another file with --config"
            ) from exc
        if present:
            given.update(_from_file(system_config))
    given.update(_from_environment(environment))
    for name, option in BY_NAME.items():
        value = arguments.get(name)
        if value is not None:
            text = ",".join(value) if isinstance(value, list) else str(value)
            given[name] = (text, option.flag)
    values: dict[str, Any] = {}
    for name, (text, source) in given.items():
        try:
            values[name] = BY_NAME[name].parse(text)
        except (ValueError, OverflowError) as exc:
            raise errors.ConfigurationError(f"{source}: {text!r} {exc}") from None
    result = settings_module.Settings(**values)
    option_checks.check_together(result, {name: source for name, (_, source) in given.items()})
    return result


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX)
        if name in _OTHER_VARIABLES or name.startswith(_OTHER_PREFIXES):
            continue
        if _SERVICE_LINK.fullmatch(name) or re.match(r"(tcp|udp|sctp)://", text):
            continue
        if name.lower() not in BY_NAME:
            known = [option.variable for option in OPTIONS]
            near = option_values.suggestion(variable, known)
            raise errors.ConfigurationError(f"unknown environment variable {variable}{near}")
        found[name.lower()] = (text, variable)
    return found


def _from_file(path: pathlib.Path) -> dict[str, tuple[str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except OSError as exc:
        raise errors.ConfigurationError(f"cannot read {path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise errors.ConfigurationError(f"{path} is not TOML: {exc}") from exc
    found: dict[str, tuple[str, str]] = {}
    for key, value in document.items():
        source = f"{path}{_line_of(text, key)}"
        if key not in BY_NAME:
            raise errors.ConfigurationError(
                f"{source}: unknown setting {key}{option_values.suggestion(key, BY_NAME)}"
            )
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            value = ",".join(value)
        if not isinstance(value, (str, int, float)):
            raise errors.ConfigurationError(f"{source}: {key} cannot be a {type(value).__name__}")
        found[key] = (str(value), f"{source} {key}")
    return found


def _line_of(text: str, key: str) -> str:
    pattern = re.compile(rf"""\s*\[*["']?{re.escape(key)}["']?\s*[=.\]]""")
    for number, line in enumerate(text.splitlines(), 1):
        if pattern.match(line):
            return f":{number}"
    return ""
