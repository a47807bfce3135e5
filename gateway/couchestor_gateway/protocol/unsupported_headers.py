"""Headers that ask for what this store does not do.

Ignoring one would answer 200 to a promise that is not kept: an object that the client believes to
be encrypted or held, or a fragment in place of the object it was to be appended to. So
they are refused by name, whatever the operation. Headers that change nothing here (a payer, a code
for deletions that nobody protects) are ignored as AWS ignores them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final

from couchestor_gateway.protocol import s3_error

_ENCRYPTION: Final = (
    "x-amz-copy-source-server-side-encryption-customer-algorithm",
    "x-amz-copy-source-server-side-encryption-customer-key",
    "x-amz-copy-source-server-side-encryption-customer-key-md5",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-context",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-server-side-encryption-customer-key",
    "x-amz-server-side-encryption-customer-key-md5",
)
_LOCKS: Final = (
    "x-amz-object-lock-event-hold-duration-days",
    "x-amz-object-lock-event-hold-duration-years",
)
_CONDITIONS: Final = (
    "x-amz-if-match-initiated-time",
    "x-amz-if-match-last-modified-time",
    "x-amz-if-match-size",
)
_OTHERS: Final = ("x-amz-website-redirect-location", "x-amz-write-offset-bytes")

HARMLESS_VALUES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        **dict.fromkeys((*_ENCRYPTION, *_LOCKS, *_CONDITIONS, *_OTHERS), ()),
        "x-amz-bucket-namespace": ("global",),
        "x-amz-object-lock-event-hold": ("off",),
        "x-amz-server-side-encryption-bucket-key-enabled": ("false",),
        # No credential here is a temporary one.
        "x-amz-security-token": (),
    }
)
"""Each header refused -> its values, in lower case, that ask for nothing."""

_NAMES: Final = frozenset(HARMLESS_VALUES)


def refuse(headers: Mapping[str, str], amz_names: Collection[str]) -> None:
    """Stop a request that asks for what is not done.

    Args:
        headers: Of the request, case-insensitive; a name may come more than once.
        amz_names: The names of its ``x-amz-`` headers in lower case, so that a request with none
            of those above costs one comparison of sets.

    Raises:
        S3Error: NotImplemented, InvalidToken for a session token.
    """
    if _NAMES.isdisjoint(amz_names):
        return
    for raw_name, value in headers.items():
        name, value = raw_name.lower(), value.strip()
        if not value or name not in _NAMES or value.lower() in HARMLESS_VALUES[name]:
            continue
        if name == "x-amz-security-token":
            raise s3_error.make("InvalidToken", "The credentials here have no session token.")
        raise s3_error.make(
            "NotImplemented",
            f"The header {name} implies functionality that is not implemented.",
            Header=name,
        )
