"""Whom a statement speaks of.

Each user of this node is an account of its own, whose root it is, and so is each tenant. An account
is named by the canonical id, alone or in ARNs:

    "<id>"                          as the id of an account, or of a CanonicalUser
    "arn:aws:iam:::user/<id>"       what ``aws:PrincipalArn`` says of a user
    "arn:aws:iam::<id>:root"
    "arn:aws:iam::<tenant>:user/<name>"   one user of a tenant, not the tenant

What is allowed to a tenant its own policies allow its users; a denial to it is one to all of them.
Other accounts, by their twelve digits or in ARNs, their users and roles, and services may be named
and are nobody here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from couchestor_domain import access
from couchestor_gateway.protocol.policy import policy_json

_IAM: Final = "arn:aws:iam:"
_STS: Final = "arn:aws:sts:"
_NAMED: Final = ("user/", "role/", "federated-user/", "assumed-role/")
_ACCOUNT: Final = re.compile("[0-9]{12}")

IsUser = Callable[[str], bool]
PRINCIPAL_CHARACTERS_MAX: Final = 2 * access.USER_ID_CHARACTERS_MAX


class Principals(NamedTuple):
    """Whom it names."""

    everybody: bool
    user_ids: frozenset[str]
    """Ids of accounts, and users of tenants as ``ports.credentials.Member`` names them."""

    def include(self, caller: access.Caller, member: str = "") -> bool:
        """Whether the caller is one of them; nobody is only if everybody is.

        Args:
            member: Which of the caller's users asks; empty: the caller.
        """
        return (
            self.everybody
            or (caller is not None and caller in self.user_ids)
            or (member != "" and member in self.user_ids)
        )


def arn_of(user_id: str) -> str:
    """A user's ARN; that of a user of a tenant if given as ``Member`` names it."""
    return f"{_IAM}:{user_id}" if ":" in user_id else f"{_IAM}::user/{user_id}"


def parse(value: policy_json.Value, *, is_user: IsUser | None) -> Principals:
    """The principals that an element names.

    Args:
        is_user: Whether an id, or ``TENANT:user/NAME``, is one of a user of this node; None for a
            policy that was accepted already, whose users may have left.

    Raises:
        S3Error: MalformedPolicy, also for a user who is not here.
    """
    if value == "*":
        return Principals(True, frozenset())
    if isinstance(value, str):
        raise policy_json.malformed("Invalid policy syntax.")
    if not isinstance(value, Mapping) or not value:
        raise invalid()
    everybody = False
    user_ids: set[str] = set()
    for kind, named in value.items():
        texts = policy_json.texts(named)
        if not texts or not all(texts):
            raise invalid()
        if kind == "AWS":
            everybody = everybody or "*" in texts
            user_ids.update(*(_of_aws(text, is_user) for text in texts if text != "*"))
        elif kind == "CanonicalUser":
            user_ids.update(_known(text, is_user) for text in texts)
        elif kind not in ("Service", "Federated") or "*" in texts:
            raise invalid()
    return Principals(everybody, frozenset(user_ids))


def invalid() -> Exception:
    """The refusal of a principal."""
    return policy_json.malformed("Invalid principal in policy")


def _of_aws(text: str, is_user: IsUser | None) -> set[str]:
    if _ACCOUNT.fullmatch(text):
        return {text}
    if not text.startswith("arn:"):
        return {_known(text, is_user)}
    if not text.startswith((_IAM, _STS)) or "*" in text or "?" in text:
        raise invalid()
    _, _, service, region, account, resource = (text.split(":", 5) + [""] * 5)[:6]
    if region or not (resource == "root" or resource.startswith(_NAMED)):
        raise invalid()
    if service == "iam" and not account and resource.startswith("user/"):
        return {_known(resource.removeprefix("user/"), is_user)}
    if not account:
        raise invalid()
    if service != "iam":
        return set()
    if resource.startswith("user/"):
        named = f"{account}:{resource}"
        # Of another account nothing is known here; of a tenant all users are.
        is_ours = is_user is not None and is_user(account)
        return {_known(named, is_user if is_ours else None)}
    return {account} if resource == "root" else set()


def _known(user_id: str, is_user: IsUser | None) -> str:
    if len(user_id) > PRINCIPAL_CHARACTERS_MAX or (is_user is not None and not is_user(user_id)):
        raise invalid()
    return user_id
