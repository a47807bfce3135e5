"""What S3 takes for the key of an object."""

from __future__ import annotations

from typing import Final

from couchestor_gateway.protocol import s3_error

BYTES_MAX: Final = 1024
"""Of a key in UTF-8."""


def too_long(size_bytes: int) -> s3_error.S3Error:
    """The refusal of a key of that length."""
    return s3_error.make(
        "KeyTooLongError",
        "Your key is too long",
        Size=str(size_bytes),
        MaxSizeAllowed=str(BYTES_MAX),
    )
