"""The words of ``couchestor tenant``, ``user``, ``key``, ``quota`` and ``rate``."""

from __future__ import annotations

import argparse
from typing import Any, Final, Protocol

COMMANDS: Final = ("tenant", "user", "key", "quota", "rate")

_GROUPS: Final = ("users", "observing", "storage")
_TENANTS: Final = """\
A tenant is an account: it owns buckets, and what ACLs and policies of buckets give to its id its
users may use. Tenants, users and access keys stand in the store itself, and every command asks the
running node, signed with its root credentials: run it as the user the node runs as.

  couchestor tenant create acme
  couchestor user create acme/ada --root          may do what the tenant may
  couchestor user create acme/bob                 may do what policies allow, nothing at first
  couchestor user attach-policy acme/bob read-only
  couchestor key create acme/bob                  shows the secret, this once"""
_USERS: Final = """\
A user is named TENANT/USER. One made with --root may do whatever the tenant may; of any other user
policies say what, together with the policies and ACLs of buckets."""
_KEYS: Final = """\
A user may have several access keys, so that one can take the place of another without a pause:
create the new one, hand it out, disable the old one, and remove it when nobody has missed it."""
_ATTACHING: Final = """\
The names read-only and read-write stand for ready-made policies over every bucket of the tenant.
Any other policy is a document in JSON, as AWS writes identity policies:

  {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["s3:GetObject"],
   "Resource": ["arn:aws:s3:::photos/*"]}]}

  couchestor user attach-policy acme/bob photos --document photos.json"""
_ID: Final = """\
With --id the tenant takes over what a user of that id in the users file owned: take the user out of
the file first."""
_ROTATING: Final = """\
Secrets are sealed with a master key in a file beside the root credentials (--master-key-file). This
draws a new one, seals every secret with it, and takes the earlier ones out of the file. Copies of
the store or of its checkpoints from before are then of no use to whoever has an old file. Back the
new file up: without it no access key of a tenant opens."""


_QUOTAS: Final = """\
A quota is the most bytes and objects that a bucket, or all buckets of a tenant together, may hold.
A write beyond it is answered 403 QuotaExceeded and stores nothing. Older versions count as current
ones do; delete markers and parts of uploads that are not completed do not.

  couchestor quota set --bucket photos --bytes 10GiB
  couchestor quota set --tenant acme --bytes 1TiB --objects 1000000
  couchestor quota show --tenant acme"""
_SETTING: Final = """\
Replaces both limits: one that is not given is taken away. A bucket from before there were quotas
is counted first, and writes wait meanwhile, for some two seconds per million objects."""
_RECOUNTING: Final = """\
For when `couchestor check` says that a counter is wrong. Writes wait meanwhile, for some two
seconds per million objects."""


_RATES: Final = """\
A rate is how many requests a second a tenant's users, or one of them, may send to all workers of
the node together; a request must fit both. One beyond is answered 503 SlowDown with Retry-After,
which clients heed by themselves. Root and users of the users file are not limited.

  couchestor rate set acme --requests-per-second 500 --burst 1000
  couchestor rate set acme/bob --requests-per-second 20
  couchestor rate remove acme/bob"""


class Add(Protocol):
    """Adds a command and its usual options to a parser."""

    def __call__(
        self,
        target: Any,
        name: str,
        text: str,
        *,
        groups: tuple[str, ...] | None,
        detail: str = "",
    ) -> argparse.ArgumentParser: ...


def add_commands(commands: Any, add: Add, parser_class: type[argparse.ArgumentParser]) -> None:
    """Add them to the command line."""

    def group(name: str, text: str, detail: str) -> Any:
        made = add(commands, name, text, groups=(), detail=detail)
        return made.add_subparsers(
            dest="action", metavar="ACTION", required=True, parser_class=parser_class
        )

    def action(target: Any, name: str, text: str, detail: str = "") -> argparse.ArgumentParser:
        made = add(target, name, text, groups=_GROUPS, detail=detail)
        made.add_argument("--json", action="store_true", help="print JSON")
        return made

    def of_tenant(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made.add_argument("tenant", help="its name or id")
        return made

    def of_user(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made.add_argument("user", metavar="tenant/user", help="the tenant's name or id, the user's")
        return made

    tenants = group("tenant", "create, list, show or remove tenants", _TENANTS)
    creating = action(tenants, "create", "make a tenant", _ID)
    creating.add_argument("tenant", metavar="name", help="what people call it")
    creating.add_argument("--id", default="", metavar="ID", help="its account id [drawn]")
    action(tenants, "list", "show all tenants")
    of_tenant(action(tenants, "show", "show a tenant and its users"))
    of_tenant(action(tenants, "remove", "remove a tenant without users and buckets"))

    users = group("user", "create, list, show or remove users of a tenant", _USERS)
    creating = of_user(action(users, "create", "make a user"))
    creating.add_argument("--root", action="store_true", help="may do whatever the tenant may")
    of_tenant(action(users, "list", "show the users of a tenant"))
    of_user(action(users, "show", "show a user, with policies and access keys"))
    of_user(action(users, "remove", "remove a user without access keys"))
    attaching = of_user(
        action(users, "attach-policy", "allow or deny a user something", _ATTACHING)
    )
    attaching.add_argument("policy", help="read-only, read-write, or a name of your own")
    attaching.add_argument(
        "--document", default="", metavar="FILE", help="the policy in JSON; -: standard input"
    )
    detaching = of_user(action(users, "detach-policy", "take a policy away again"))
    detaching.add_argument("policy", help="its name in `couchestor user show`")

    keys = group("key", "create, list, disable or remove access keys", _KEYS)
    of_user(action(keys, "create", "make an access key; its secret is shown once"))
    of_user(action(keys, "list", "show the access keys of a user"))
    for name, text in (
        ("disable", "let nobody in by an access key for now"),
        ("enable", "take that back"),
        ("remove", "forget an access key for good"),
    ):
        action(keys, name, text).add_argument("access_key", help="as `couchestor key list` shows")
    quotas = group("quota", "limit what buckets and tenants hold", _QUOTAS)

    def of_holder(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
        which = made.add_mutually_exclusive_group(required=True)
        which.add_argument("--bucket", default="", metavar="NAME", help="of a bucket")
        which.add_argument("--tenant", default="", metavar="NAME", help="of a tenant's buckets")
        return made

    of_holder(action(quotas, "show", "show what is held, and what may be"))
    setting = of_holder(action(quotas, "set", "limit what may be held", _SETTING))
    setting.add_argument("--bytes", default="", metavar="SIZE", help="such as 10GiB [no limit]")
    setting.add_argument("--objects", default="", metavar="N", help="[no limit]")
    of_holder(action(quotas, "remove", "take the limits away"))
    of_holder(action(quotas, "recount", "count anew what is held", _RECOUNTING))

    rates = group("rate", "limit how many requests tenants and users send", _RATES)

    def of_either(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made.add_argument("holder", metavar="tenant[/user]", help="whose requests")
        return made

    setting = of_either(action(rates, "set", "limit the rate of requests"))
    setting.add_argument(
        "--requests-per-second", required=True, metavar="N", help="in the long run, at least 1"
    )
    setting.add_argument(
        "--burst", default="", metavar="N", help="at once after a pause [those of one second]"
    )
    of_either(action(rates, "remove", "take the limit away"))

    action(keys, "rotate-master", "seal every secret with a new master key", _ROTATING)
