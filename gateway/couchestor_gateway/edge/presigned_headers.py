"""Headers that a presigned URL carries in its query.

Some SDKs move every ``x-amz-`` header of a request into the URL when they presign it: metadata,
checksums, the source of a copy. Ignoring them would store something else than was signed, an empty
object in place of a copy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import multidict

from couchestor_gateway.protocol import header_syntax, s3_error

_STAYING: Final = frozenset(
    {
        "x-amz-algorithm",
        "x-amz-content-sha256",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-expires",
        # Says only what the SDK would have computed, had it had the body.
        "x-amz-sdk-checksum-algorithm",
        "x-amz-signature",
        "x-amz-signedheaders",
    }
)


def merged(
    headers: Mapping[str, str],
    query: Mapping[str, str],
    *,
    also: Collection[str] = (),
) -> Mapping[str, str]:
    """The headers of a request with those that its verified query stands for.

    What comes as a header counts; the signature covers both.

    Args:
        headers: Case-insensitive.
        also: Names, in lower case, that stand for headers beside those that start with ``x-amz-``.

    Raises:
        S3Error: InvalidArgument for one that no header can hold.
    """
    moved = [
        (name, value)
        for name, value in query.items()
        if (name[:6].lower() == "x-amz-" or name.lower() in also)
        and name.lower() not in _STAYING
        and name not in headers
    ]
    if not moved:
        return headers
    for name, value in moved:
        # A query can hold what no header can, and what is kept goes out as a header again.
        if not header_syntax.is_name(name) or not header_syntax.is_value(value):
            raise s3_error.make(
                "InvalidArgument", "A query parameter cannot stand for a header.", ArgumentName=name
            )
    both = multidict.CIMultiDict(headers)
    both.extend(moved)
    return both
