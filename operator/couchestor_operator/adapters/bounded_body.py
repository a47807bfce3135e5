"""The body of an HTTP answer, however much of it is sent."""

from __future__ import annotations

import zlib
from typing import Final

import aiohttp

from couchestor_domain import errors, units

_CHUNK_BYTES: Final = 256 * units.KIB
_GZIP_WBITS: Final = 31


async def read(
    response: aiohttp.ClientResponse,
    bytes_max: int,
    *,
    where: str,
    unfit: type[errors.ControlPlaneError],
    too_long: str = "look for a proxy in between",
) -> bytearray:
    """The decompressed body; no more of it is ever in memory than allowed, and a chunk.

    The session must not decompress by itself: what a small body may become is bounded here.

    Args:
        bytes_max: Of the decompressed body.
        where: Who answered, for errors.
        unfit: The error for a body that cannot be taken.
        too_long: What to do about one that is longer.

    Raises:
        ControlPlaneError: (``unfit``) it is longer, or not compressed as announced.
        aiohttp.ClientError: the connection broke off.
    """
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("gzip", "identity"):
        raise unfit(
            f"{where} compresses its answer in a way that it was not asked for: look for a proxy"
            " in between"
        )
    inflater = zlib.decompressobj(_GZIP_WBITS) if encoding == "gzip" else None
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        if inflater is None:
            body += chunk
        else:
            try:
                # One byte more than allowed is enough to know that it is too much.
                body += inflater.decompress(chunk, bytes_max + 1 - len(body))
            except zlib.error as exc:
                raise unfit(
                    f"{where} answered something else than the gzip it announced: look for a proxy"
                    " in between"
                ) from exc
        if len(body) > bytes_max:
            raise unfit(f"{where} answered more than {bytes_max} bytes: {too_long}")
        if inflater is not None and inflater.eof:
            # What follows the end would only be collected.
            break
    if inflater is not None and not inflater.eof:
        raise unfit(
            f"{where} broke off in the middle of its gzip answer: look for a proxy in between"
        )
    return body
