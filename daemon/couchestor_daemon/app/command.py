"""The ``couchestor`` command: reads the command line and hands over."""

from __future__ import annotations

import argparse
import collections.abc
import errno
import importlib
import importlib.util
import json
import logging
import os
import sys
from typing import Any, Final, NoReturn

from couchestor_daemon.app import logs, option_table, option_values, settings, status_text, version
from couchestor_domain import errors

USAGE_EXIT: Final = 2
_PASSING_ERRNOS: Final = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EWOULDBLOCK})
"""A port that is taken, an address that this machine does not have yet, a lock that is held."""
FOREIGN: Final = {
    "bench": ("couchestor_bench.command:main", "measure this node or any S3 endpoint"),
    "operator": ("couchestor_operator.app.command:main", "run the Kubernetes operator"),
}
NEEDS: Final = {"bench": ("numpy", "psutil", "uvloop")}
"""Libraries of a part that no other part brings: without them help does not offer it."""
_INTRODUCTION: Final = """\
CoucheStor is an erasure-coded S3 object store.

  couchestor serve              serve S3 on http://127.0.0.1:9000 from a folder of your own
  couchestor serve --help       every setting, with its default
  couchestor status             how the running node is doing
  couchestor device list        the devices of the node, their state and room

Every command finds the node as `serve` does: by --data-dir, --config or COUCHESTOR_* variables.
"""
_PRECEDENCE: Final = """\
Each setting can be given as a flag, as an environment variable (--zone-bytes is
COUCHESTOR_ZONE_BYTES) or in a TOML file (zone_bytes = "64MiB"); the first of these wins.
Sizes: 4096, 128KiB, 64MiB, 1.5GiB. The root keys come from COUCHESTOR_ROOT_ACCESS_KEY and
COUCHESTOR_ROOT_SECRET, or from a file made at first start. Ctrl-C or SIGTERM lets running
requests finish first; SIGHUP reads the log level and the certificate again.

examples:
  couchestor serve
  couchestor serve --data-dir /srv/s3 --port 9100
  couchestor serve --devices /mnt/a,/mnt/b,/mnt/c --data-shards 2 --parity-shards 1
"""


_STATES: Final = """\
Works on a running and on a stopped node. States:
  present   in use
  retiring  read from, given nothing new
  suspected slow beside the others, or wrong too often; it is being tested
  held      failed tests: read around where it is slow, given nothing new
  failed    there, and out of service in a process of the running node: see `device attach`
  missing   not there or not formatted: the node serves around it
  refused   of another node, an old copy, named twice or damaged: the reason stands below
  new       formatted by the first start"""
_ADDING: Final = """\
A running node puts it into service at once, a stopped one at its next start; both remember the
path without any change to the configuration. A folder that is not empty or belongs to another node
is refused by name. Repeating an interrupted command finishes it. Under systemd the unit must be
allowed to write there (ReadWritePaths=, see docs/OPERATIONS.md)."""
_RETIRING: Final = """\
No new zone is taken on the device any more, of a stopped node from its next start on, and what it
holds moves away in the background. It is still read from meanwhile: leave it attached until
`couchestor status` shows that it is empty. Refused when too few devices would stay."""
_REMOVING: Final = """\
For a device that has retired and is empty, or is gone for good when what it held is elsewhere:
the node forgets it. Refused with numbers while the index refers to anything on it."""
_REPLACING: Final = """\
Adds the folder as `device add` does. The other device retires; if it is missing or has failed,
what it held is rebuilt. `device remove` forgets it once it holds nothing. Refused when too few
devices would stay in service. A rebuild under way goes on, with one device more to choose from."""
_ATTACHING: Final = """\
For a device that was missing or has failed and is there again, at its old path or another one. A
running node serves it at once. An old copy or the device of another node is refused by name."""

_CHECKING: Final = """\
Works beside a running node and on a stopped one, and finds out by itself which it is. Looks at the
identity of every device, at every batch of the log that is needed on every replica, at checkpoints,
at the tables of the index against one another, and reads every shard that something leads to. What
looks wrong while the node runs is looked at again before it is told. Changes nothing unless told to
repair, which wants the node stopped.
Exit status 0: all is well or only something is left over, 1: damage was found."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # One clear line: the whole usage would bury it.
        print(f"couchestor: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(USAGE_EXIT)


class _Version(argparse.Action):
    """Looks the version up when it is asked for: no other command waits for that."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print(f"couchestor {version.installed()}")
        raise SystemExit(0)


def main(argv: collections.abc.Sequence[str] | None = None) -> int:
    """Entry of the command. Returns the exit status: 2 for a mistake in how it was called, which
    only a person can correct, 1 for what may be different the next time."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words, dict(os.environ))
    except errors.ConfigurationError as exc:
        logs.complain(exc.message)
        return 1 if _may_pass(exc) else USAGE_EXIT
    except errors.CouchestorError as exc:
        logs.complain(exc.message)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has gone, as `couchestor --help | head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as exc:
        # Nobody has foreseen it, so no line says what to do; which file it was still helps most.
        place = f"{exc.filename}: " if exc.filename else ""
        print(f"couchestor: {place}{exc.strerror or exc}", file=sys.stderr)
        return 1


def _may_pass(exc: errors.ConfigurationError) -> bool:
    """Whether the settings may be right: somebody else has a port, an address or the folder now."""
    cause = exc.__cause__
    return isinstance(cause, OSError) and cause.errno in _PASSING_ERRNOS


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="couchestor",
        description=_INTRODUCTION,
        formatter_class=raw,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and end")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    def add(
        target: Any,
        name: str,
        text: str,
        *,
        groups: tuple[str, ...] | None,
        detail: str = "",
    ) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = target.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.\n\n{detail}".rstrip(),
            epilog=_PRECEDENCE if name == "serve" else None,
            formatter_class=raw,
            allow_abbrev=False,
        )
        if groups is None or groups:
            option_table.add_flags(made, groups=groups)
        return made

    storage = ("storage", "erasure coding")
    serving = add(commands, "serve", "serve S3 until stopped", groups=None)
    serving.usage = "couchestor serve [--OPTION VALUE]..."  # all of them in brackets teach nobody
    device = add(
        commands,
        "device",
        "list, add, retire, replace or remove devices",
        groups=(),
        detail="A device is a folder on a medium that can fail as a whole, such as a disk.",
    )
    actions = device.add_subparsers(
        dest="action", metavar="ACTION", required=True, parser_class=_Parser
    )
    listing = add(
        actions,
        "list",
        "show each device, its state and room",
        groups=storage,
        detail=_STATES,
    )
    listing.add_argument("--json", action="store_true", help="print JSON")
    adding = add(
        actions,
        "add",
        "make an empty folder a device of this node",
        groups=storage,
        detail=_ADDING,
    )
    adding.add_argument("path", help="an existing, empty folder, best on a medium of its own")
    _add_name_flags(adding)
    retiring = add(
        actions,
        "retire",
        "give a device nothing new; what it holds stays readable",
        groups=storage,
        detail=_RETIRING,
    )
    retiring.add_argument(
        "name", metavar="label", help="its name or id in `couchestor device list`"
    )
    retiring.add_argument(
        "--undo", action="store_true", help="take a retiring device back into service"
    )
    removing = add(
        actions,
        "remove",
        "take out a device that holds nothing any more",
        groups=storage,
        detail=_REMOVING,
    )
    removing.add_argument("name", metavar="device", help="its label, id or path")
    replacing = add(
        actions,
        "replace",
        "put an empty folder in the place of a device",
        groups=storage,
        detail=_REPLACING,
    )
    replacing.add_argument("name", metavar="device", help="label, id or path of the old one")
    replacing.add_argument("path", help="an existing, empty folder, best on a medium of its own")
    _add_name_flags(replacing)
    attaching = add(
        actions,
        "attach",
        "bring back a device that was missing or has failed",
        groups=storage,
        detail=_ATTACHING,
    )
    attaching.add_argument("path", help="where it is now")
    checking = add(
        commands,
        "check",
        "verify devices, log, index and every shard",
        groups=storage,
        detail=_CHECKING,
    )
    checking.add_argument(
        "--repair",
        action="store_true",
        help="free zones that nothing owns and drop repairs of groups that are gone; damaged "
        "shards are rebuilt by the running node",
    )
    checking.add_argument(
        "--quick",
        action="store_true",
        help="only the tables of the index, and the shards that are known to wait for repair",
    )
    checking.add_argument(
        "--bytes-per-second",
        metavar="SIZE",
        help="read so much at most, 0: no limit [64MiB beside a running node]",
    )
    checking.add_argument("--json", action="store_true", help="print JSON")
    add(
        commands,
        "recover",
        "rebuild the index from the log on the devices",
        groups=storage,
        detail="For when the index is lost or damaged; the node must be stopped. The earlier\n"
        "index is kept beside it as index.before-rebuild.",
    )
    reporting = add(
        commands,
        "status",
        "show how the running node is doing",
        groups=("observing", "storage"),
        detail="Exit status 0: it takes requests, 1: it runs but does not, 2: nothing answers.",
    )
    reporting.add_argument("--json", action="store_true", help="print JSON")
    for name, (_, text) in FOREIGN.items():
        if _is_installed(name):
            commands.add_parser(name, help=text, add_help=False)
    return parser


def _add_name_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--label", default="", metavar="NAME", help="its name in messages [the folder's name]"
    )
    parser.add_argument(
        "--failure-domain",
        default="",
        metavar="NAME",
        help="devices with the same name here may fail together, such as one shelf [the label]",
    )


def _dispatch(words: list[str], environment: dict[str, str]) -> int:
    parser = build_parser()
    if not words:
        parser.print_help()
        return 0
    if words[0] in FOREIGN:
        return _hand_over(words[0], words[1:])
    known = ["serve", "device", "check", "recover", "status"]
    known += [name for name in FOREIGN if _is_installed(name)]
    if not words[0].startswith("-") and words[0] not in known:
        near = option_values.suggestion(words[0], known)
        parser.error(f"unknown command {words[0]}{near}")
    arguments, extra = parser.parse_known_args(words)
    if extra:
        flags = [option.flag for option in option_table.OPTIONS] + [
            "--config",
            "--json",
            "--help",
            "--version",
        ]
        near = option_values.suggestion(extra[0].partition("=")[0], flags)
        parser.error(f"unknown argument {extra[0]}{near}")
    if arguments.command is None:
        parser.error("a command is missing")

    def load() -> settings.Settings:
        return option_table.load(vars(arguments), environment)

    told = load()
    if arguments.command == "serve":
        from couchestor_daemon.app import serve_command

        return serve_command.run(told, environment=environment, reload=load)
    logs.configure(json_lines=told.log_json, level="warning")
    logging.getLogger("couchestor").setLevel(told.log_level.upper())
    return _act(arguments, told)


def _act(arguments: argparse.Namespace, told: settings.Settings) -> int:
    if arguments.command == "status":
        asking = importlib.import_module("couchestor_daemon.app.status_request")
        found = asking.ask(told)
        print(json.dumps(found, default=str) if arguments.json else status_text.render(found))
        return 0 if found.get("ready") else 1
    elif arguments.command == "recover":
        commands = importlib.import_module("couchestor_daemon.app.node_commands")
        print(commands.recover(told))
    elif arguments.command == "check":
        checking = importlib.import_module("couchestor_daemon.app.check_command")
        checked = checking.check(
            told,
            repair=arguments.repair,
            quick=arguments.quick,
            bytes_per_second=_rate(arguments.bytes_per_second),
        )
        if arguments.json:
            print(json.dumps(checked._asdict()))
        else:
            lines = [*checked.repaired, *checked.findings, *checked.notes]
            print("\n".join(lines) or "everything verified")
        return 1 if checked.findings else 0
    elif arguments.command == "device":
        devices = importlib.import_module("couchestor_daemon.app.device_commands")
        print(devices.act(arguments, told))
    return 0


def _rate(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return option_values.parse_size(text)
    except ValueError as exc:
        raise errors.ConfigurationError(f"--bytes-per-second {text} {exc}") from exc


def _hand_over(name: str, words: list[str]) -> int:
    target = FOREIGN[name][0]
    if not _is_importable(target):
        raise errors.ConfigurationError(f"this version of couchestor has no `couchestor {name}`")
    module, _, function = target.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as exc:
        raise errors.ConfigurationError(
            f"`couchestor {name}` needs {exc.name}, which is not installed; run: "
            f"pip install 'couchestor[{name}]'"
        ) from exc
    return int(getattr(found, function)(words) or 0)


def _is_installed(name: str) -> bool:
    return all(map(_is_importable, (FOREIGN[name][0], *NEEDS.get(name, ()))))


def _is_importable(target: str) -> bool:
    try:
        return importlib.util.find_spec(target.partition(":")[0]) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main())
