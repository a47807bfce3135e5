"""Who a grant is for: a user of this node by id or e-mail address, or a group by its URI."""

from __future__ import annotations

from typing import Final

from couchestor_domain import access
from couchestor_gateway.ports import credentials as credential_port
from couchestor_gateway.protocol import s3_error

_URI: Final = "http://acs.amazonaws.com/groups/"
GROUP_URIS: Final = {group: f"{_URI}global/{group.value}" for group in access.Group}
_GROUPS: Final = {uri: group for group, uri in GROUP_URIS.items()}
_LOG_DELIVERY: Final = f"{_URI}s3/LogDelivery"


def grant(
    permission: access.Permission,
    kind: str,
    value: str,
    *,
    users: credential_port.CredentialStore,
) -> access.Grant:
    """A grant, its grantee looked up: what is stored names users and groups that exist.

    Args:
        kind: ``id``, ``emailaddress`` or ``uri``.

    Raises:
        S3Error: InvalidArgument for a user or group that is not here, or another kind;
            UnresolvableGrantByEmailAddress; NotImplemented for the group of AWS's log writers.
    """
    if kind == "id":
        if users.user(value) is None:
            raise s3_error.make(
                "InvalidArgument",
                "Invalid id",
                ArgumentName="CanonicalUser/ID",
                ArgumentValue=value[:256],
            )
        return access.Grant(permission, value)
    if kind == "emailaddress":
        user = users.user_by_email(value)
        if user is None:
            raise s3_error.make("UnresolvableGrantByEmailAddress", Email=value[:256])
        return access.Grant(permission, user.user_id)
    if kind == "uri":
        group = _GROUPS.get(value)
        if group is not None:
            return access.Grant(permission, group=group)
        if value == _LOG_DELIVERY:
            raise s3_error.make(
                "NotImplemented",
                "The owner of a bucket writes logs into it: no grant is needed for that.",
            )
        raise s3_error.make(
            "InvalidArgument", "Invalid group uri", ArgumentName="uri", ArgumentValue=value[:256]
        )
    raise s3_error.make(
        "InvalidArgument",
        "Argument format not recognized",
        ArgumentName="x-amz-grant",
        ArgumentValue=kind[:64],
    )


def too_many() -> s3_error.S3Error:
    """The refusal of a list of grants that is too long."""
    return s3_error.make(
        "MalformedACLError", f"An access control list has {access.GRANTS_MAX} grants at most."
    )
