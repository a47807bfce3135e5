"""``couchestor tenant``, ``user`` and their like: ask the running node, and say what it did."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from couchestor_daemon.app import admin_client, option_values, settings
from couchestor_domain import errors

Client = admin_client.AdminClient
_path = admin_client.path_of


def _ready_made(*actions: str) -> bytes:
    statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]}).encode()


READY_MADE: Final[Mapping[str, bytes]] = MappingProxyType(
    {
        "read-only": _ready_made("s3:Get*", "s3:List*"),
        "read-write": _ready_made("s3:*"),
    }
)
"""Policies that need no document."""


def act(arguments: argparse.Namespace, told: settings.Settings) -> str:
    """Carry out the command; returns what to print.

    Raises:
        CouchestorError: refused, by the node or here.
    """
    carry_out = _ACTIONS[arguments.command, arguments.action]
    found, text = carry_out(arguments, Client(told))
    return json.dumps(found) if arguments.json else text


Told = tuple[Mapping[str, Any], str]


def _create_tenant(arguments: argparse.Namespace, client: Client) -> Told:
    asked = {"name": arguments.tenant, "id": arguments.id}
    found = client.ask("POST", _path("tenants"), asked)
    return found, (
        f"tenant {found['name']} is there, with the id {found['id']}; "
        f"`couchestor user create {found['name']}/NAME` makes its first user"
    )


def _list_tenants(arguments: argparse.Namespace, client: Client) -> Told:
    found = client.ask("GET", _path("tenants"))
    rows = [(each["name"], each["id"], each["created_at"]) for each in found["tenants"]]
    return found, _table(("NAME", "ID", "CREATED"), rows, "there are no tenants")


def _show_tenant(arguments: argparse.Namespace, client: Client) -> Told:
    found = client.ask("GET", _path("tenants", arguments.tenant))
    return found, "\n".join(
        (
            f"tenant   {found['name']}",
            f"id       {found['id']}",
            f"created  {found['created_at']}",
            f"users    {', '.join(found['users']) or '-'}",
            *([f"rate     {_rate_text(found['rate'])}"] if found["rate"] else []),
            _held_text(found),
        )
    )


def _remove_tenant(arguments: argparse.Namespace, client: Client) -> Told:
    found = client.ask("DELETE", _path("tenants", arguments.tenant))
    return found, f"tenant {arguments.tenant} is removed"


def _create_user(arguments: argparse.Namespace, client: Client) -> Told:
    tenant, user = _named(arguments.user)
    asked = {"name": user, "is_root": arguments.root}
    found = client.ask("POST", _path("tenants", tenant, "users"), asked)
    following = f"`couchestor key create {tenant}/{user}` makes an access key"
    if arguments.root:
        return found, f"user {user} is there and may do whatever {tenant} may; {following}"
    return found, (
        f"user {user} is there and may do nothing yet: `couchestor user attach-policy"
        f" {tenant}/{user} read-only`, or another policy; {following}"
    )


def _list_users(arguments: argparse.Namespace, client: Client) -> Told:
    found = client.ask("GET", _path("tenants", arguments.tenant, "users"))
    rows = [
        (
            each["name"],
            "root of the tenant" if each["is_root"] else ", ".join(each["policies"]) or "-",
            str(len(each["keys"])),
        )
        for each in found["users"]
    ]
    return found, _table(("NAME", "POLICIES", "KEYS"), rows, "the tenant has no users")


def _show_user(arguments: argparse.Namespace, client: Client) -> Told:
    found = client.ask("GET", _user_path(arguments.user))
    lines = [
        f"user     {found['name']}",
        f"arn      {found['arn']}",
        f"created  {found['created_at']}",
        f"may      {'whatever the tenant may' if found['is_root'] else 'what policies allow'}",
    ]
    if found["rate"]:
        lines.append(f"rate     {_rate_text(found['rate'])}")
    for name, document in found["policies"].items():
        lines += [f"policy   {name}", f"         {' '.join(document.split())}"]
    lines += [f"key      {_key_text(each)}" for each in found["keys"]]
    return found, "\n".join(lines)


def _remove_user(arguments: argparse.Namespace, client: Client) -> Told:
    found = client.ask("DELETE", _user_path(arguments.user))
    return found, f"user {arguments.user} is removed"


def _attach_policy(arguments: argparse.Namespace, client: Client) -> Told:
    name = arguments.policy
    document = _document(arguments.document) if arguments.document else READY_MADE.get(name)
    if document is None:
        raise errors.ConfigurationError(
            f"{name} is none of the ready-made policies ({', '.join(READY_MADE)}): name a file"
            " with --document"
        )
    path = _user_path(arguments.user, "policies", name)
    return client.ask("PUT", path, document), f"policy {name} is attached to {arguments.user}"


def _detach_policy(arguments: argparse.Namespace, client: Client) -> Told:
    found = client.ask("DELETE", _user_path(arguments.user, "policies", arguments.policy))
    return found, f"policy {arguments.policy} is detached from {arguments.user}"


def _create_key(arguments: argparse.Namespace, client: Client) -> Told:
    found = client.ask("POST", _user_path(arguments.user, "keys"))
    return found, "\n".join(
        (
            "the secret is shown this once:",
            f"export AWS_ACCESS_KEY_ID={found['access_key']}",
            f"export AWS_SECRET_ACCESS_KEY={found['secret_key']}",
        )
    )


def _list_keys(arguments: argparse.Namespace, client: Client) -> Told:
    keys = client.ask("GET", _user_path(arguments.user))["keys"]
    text = "\n".join(map(_key_text, keys)) or "the user has no access keys"
    return {"keys": keys}, text


def _change_key(arguments: argparse.Namespace, client: Client) -> Told:
    is_active = arguments.action == "enable"
    found = client.ask("PATCH", _path("keys", arguments.access_key), {"is_active": is_active})
    return found, f"access key {arguments.access_key} is {'active' if is_active else 'inactive'}"


def _remove_key(arguments: argparse.Namespace, client: Client) -> Told:
    found = client.ask("DELETE", _path("keys", arguments.access_key))
    return found, f"access key {arguments.access_key} is removed"


def _rotate(arguments: argparse.Namespace, client: Client) -> Told:
    found = client.ask("POST", _path("master-key", "rotation"))
    return found, (
        f"{found['secrets_count']} secrets are sealed with the new master key"
        f" {found['master_key_id']}: back the file up"
    )


def _holder_path(arguments: argparse.Namespace, *more: str) -> str:
    kind = "buckets" if arguments.bucket else "tenants"
    return _path(kind, arguments.bucket or arguments.tenant, *more)


def _show_quota(arguments: argparse.Namespace, client: Client) -> Told:
    found = client.ask("GET", _holder_path(arguments))
    return found, _held_text(found)


def _set_quota(arguments: argparse.Namespace, client: Client) -> Told:
    limits: dict[str, int] = {}
    if arguments.action == "set":
        for name in ("bytes", "objects"):
            text = getattr(arguments, name)
            if text:
                limits[name] = _size(text) if name == "bytes" else _number("--objects", text)
        if not limits:
            raise errors.ConfigurationError(
                "name --bytes, --objects or both; `couchestor quota remove` takes both away"
            )
    found = client.ask("PUT", _holder_path(arguments, "quota"), limits)
    return found, _held_text(found)


def _recount(arguments: argparse.Namespace, client: Client) -> Told:
    found = client.ask("POST", _holder_path(arguments, "recount"))
    return found, _held_text(found)


def _rate_path(holder: str) -> str:
    if "/" in holder:
        return _user_path(holder, "rate")
    return _path("tenants", holder, "rate")


def _set_rate(arguments: argparse.Namespace, client: Client) -> Told:
    asked = {
        "requests_per_second": _number("--requests-per-second", arguments.requests_per_second),
        "burst": _number("--burst", arguments.burst or arguments.requests_per_second),
    }
    found = client.ask("PUT", _rate_path(arguments.holder), asked)
    return found, f"{arguments.holder} may send {_rate_text(asked)}"


def _remove_rate(arguments: argparse.Namespace, client: Client) -> Told:
    found = client.ask("DELETE", _rate_path(arguments.holder))
    return found, f"{arguments.holder} may send any number of requests"


def _size(text: str) -> int:
    try:
        return option_values.parse_size(text)
    except ValueError as exc:
        raise errors.ConfigurationError(f"--bytes {text} {exc}") from exc


def _number(flag: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise errors.ConfigurationError(f"{flag} {text} is no whole number")
    return int(text)


_ACTIONS: Final[Mapping[tuple[str, str], Callable[[argparse.Namespace, Client], Told]]] = (
    MappingProxyType(
        {
            ("tenant", "create"): _create_tenant,
            ("tenant", "list"): _list_tenants,
            ("tenant", "show"): _show_tenant,
            ("tenant", "remove"): _remove_tenant,
            ("user", "create"): _create_user,
            ("user", "list"): _list_users,
            ("user", "show"): _show_user,
            ("user", "remove"): _remove_user,
            ("user", "attach-policy"): _attach_policy,
            ("user", "detach-policy"): _detach_policy,
            ("key", "create"): _create_key,
            ("key", "list"): _list_keys,
            ("key", "disable"): _change_key,
            ("key", "enable"): _change_key,
            ("key", "remove"): _remove_key,
            ("key", "rotate-master"): _rotate,
            ("rate", "set"): _set_rate,
            ("rate", "remove"): _remove_rate,
            ("quota", "show"): _show_quota,
            ("quota", "set"): _set_quota,
            ("quota", "remove"): _set_quota,
            ("quota", "recount"): _recount,
        }
    )
)


def _named(text: str) -> tuple[str, str]:
    """Tenant and user of TENANT/USER."""
    tenant, separator, user = text.partition("/")
    if not separator or not tenant or not user:
        raise errors.ConfigurationError(f"{text} names no user: write TENANT/USER")
    return tenant, user


def _user_path(text: str, *more: str) -> str:
    tenant, user = _named(text)
    return _path("tenants", tenant, "users", user, *more)


def _document(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return pathlib.Path(name).read_bytes()
    except OSError as exc:
        raise errors.ConfigurationError(f"cannot read {name}: {exc.strerror}") from exc


def _key_text(key: Mapping[str, Any]) -> str:
    state = "active" if key["is_active"] else "inactive"
    return f"{key['access_key']}  {state}, created {key['created_at']}"


def _held_text(found: Mapping[str, Any]) -> str:
    usage, quota = found["usage"], found["quota"]
    if usage is None:
        return "holds    not counted yet: `couchestor quota set` or `recount` does it"
    limits = [f"{quota[name]} {name}" for name in ("bytes", "objects") if quota[name] is not None]
    return "\n".join(
        (
            f"holds    {usage['bytes']} bytes in {usage['objects']} "
            + ("object" if usage["objects"] == 1 else "objects"),
            f"quota    {' and '.join(limits) or 'none'}",
        )
    )


def _rate_text(rate: Mapping[str, Any]) -> str:
    return f"{rate['requests_per_second']} requests a second, {rate['burst']} at once"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> str:
    if not rows:
        return nothing
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    )
