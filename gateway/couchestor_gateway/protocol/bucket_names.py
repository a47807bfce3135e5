"""AWS's rules for the names of general purpose buckets."""

from __future__ import annotations

import string
from typing import Final

from couchestor_gateway.protocol import s3_error

LENGTH_MIN: Final = 3
LENGTH_MAX: Final = 63

_EDGE: Final = string.ascii_lowercase + string.digits
_ALLOWED: Final = _EDGE + ".-"
_PREFIXES: Final = ("xn--", "sthree-", "amzn-s3-demo-")
_SUFFIXES: Final = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


def is_valid(name: str) -> bool:
    """Whether a bucket may have this name."""
    if not LENGTH_MIN <= len(name) <= LENGTH_MAX:
        return False
    # Stripping every allowed character leaves nothing of a good name, at the speed of C.
    if name.strip(_ALLOWED) or name[0] not in _EDGE or name[-1] not in _EDGE:
        return False
    if ".." in name or ".-" in name or "-." in name:
        return False
    if name.startswith(_PREFIXES) or name.endswith(_SUFFIXES):
        return False
    return not _is_ipv4(name)


def validate(name: str) -> None:
    """Refuse names AWS refuses.

    Raises:
        S3Error: InvalidBucketName.
    """
    if not is_valid(name):
        raise s3_error.make("InvalidBucketName", BucketName=name)


def _is_ipv4(name: str) -> bool:
    labels = name.split(".")
    return len(labels) == 4 and all(label.isdigit() for label in labels)
