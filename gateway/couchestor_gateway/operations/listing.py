"""What the object listings have in common: their query and their entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from couchestor_domain import objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.protocol import list_encoding, permissions, timestamps, xml_writing


def query(bucket: str, parameters: Mapping[str, str], *, after: str) -> objects.ListQuery:
    """The store's query behind a request's parameters."""
    return objects.ListQuery(
        bucket=bucket,
        prefix=parameters.get("prefix", ""),
        delimiter=parameters.get("delimiter", ""),
        after=after,
        limit=list_encoding.page_limit(parameters, "max-keys"),
    )


def write_contents(
    xml: xml_writing.Document,
    page: objects.ListPage,
    encode: Callable[[str], str],
    *,
    request: s3_request.S3Request,
    with_owner: bool,
) -> None:
    """``Contents`` of every object of a page."""
    bucket = request.bucket_record
    for record in page.objects:
        xml.open("Contents").text("Key", encode(record.key))
        xml.text("LastModified", timestamps.iso8601(record.modified_ns))
        xml.text("ETag", f'"{record.etag}"')
        if record.checksums:
            for algorithm in record.checksums:
                xml.text("ChecksumAlgorithm", algorithm.upper())
            xml.text("ChecksumType", record.checksum_type)
        xml.text("Size", record.size_bytes)
        if with_owner:
            owner = permissions.owner_of(bucket, record)
            xml.owner(owner, request.display_name(owner))
        xml.text("StorageClass", "STANDARD").close("Contents")


def write_prefixes(
    xml: xml_writing.Document, prefixes: Sequence[str], encode: Callable[[str], str]
) -> None:
    """``CommonPrefixes`` of a page."""
    for prefix in prefixes:
        xml.open("CommonPrefixes").text("Prefix", encode(prefix)).close("CommonPrefixes")
