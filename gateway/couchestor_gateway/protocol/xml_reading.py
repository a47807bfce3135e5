"""Reading the XML documents of requests, within the bounds of ``xml_tree``."""

from __future__ import annotations

from typing import Final, NamedTuple

from couchestor_domain import objects, units
from couchestor_gateway.protocol import conditions, s3_error, xml_tree

DOCUMENT_BYTES_MAX: Final = 8 * units.MIB
"""Longest document read: 10,000 parts with checksums, or 1,000 keys of 1,024 characters, each of
them written as a reference of six, as ``&quot;`` is.
"""

SMALL_DOCUMENT_BYTES_MAX: Final = 64 * units.KIB
DELETE_KEYS_MAX: Final = 1_000
PARTS_MAX: Final = 10_000

_CHECKSUMS: Final = {
    "ChecksumCRC32": "crc32",
    "ChecksumCRC32C": "crc32c",
    "ChecksumCRC64NVME": "crc64nvme",
    "ChecksumSHA1": "sha1",
    "ChecksumSHA256": "sha256",
}


class DeleteItem(NamedTuple):
    """One object of a DeleteObjects request; an absent version is None."""

    key: str
    version_id: str | None
    if_match: str | None = None
    """The ETag that it must have, without quotes, or ``*``; None: any, or none."""


class DeleteRequest(NamedTuple):
    """DeleteObjects: 1 to ``DELETE_KEYS_MAX`` objects in the client's order."""

    objects: tuple[DeleteItem, ...]
    quiet: bool


def create_bucket_configuration(document: bytes) -> str:
    """The LocationConstraint asked for, or an empty string.

    Raises:
        S3Error: MalformedXML, NotImplemented for whatever else a bucket is to have or be.
    """
    root = xml_tree.parse(
        document,
        "CreateBucketConfiguration",
        bytes_max=SMALL_DOCUMENT_BYTES_MAX,
        elements_max=256,
    )
    for child in root.children:
        if child.name != "LocationConstraint" and (child.children or child.text.strip()):
            raise s3_error.make(
                "NotImplemented",
                f"The element {child.name[:64]} of a new bucket is not implemented.",
            )
    return (root.find("LocationConstraint") or "").strip()


def versioning_configuration(document: bytes) -> objects.Versioning:
    """What a PutBucketVersioning request asks for.

    Raises:
        S3Error: MalformedXML, IllegalVersioningConfigurationException (no status, or an unknown
            one), NotImplemented for deletes that need a second factor.
    """
    root = xml_tree.parse(
        document, "VersioningConfiguration", bytes_max=SMALL_DOCUMENT_BYTES_MAX, elements_max=64
    )
    for child in root.children:
        if child.name not in ("Status", "MfaDelete", "MFADelete"):
            xml_tree.refuse(f"Unexpected element {child.name[:64]}.")
    factor = (root.find("MfaDelete") or root.find("MFADelete") or "").strip()
    if factor == "Enabled":
        raise s3_error.make("NotImplemented", "Deletes that need a second factor.")
    status = (root.find("Status") or "").strip()
    for versioning in (objects.Versioning.ENABLED, objects.Versioning.SUSPENDED):
        if status == versioning.value:
            return versioning
    raise s3_error.make("IllegalVersioningConfigurationException")


def tagging(document: bytes, *, tags_max: int) -> tuple[tuple[str, str], ...]:
    """The tags that a request puts, as they stand there.

    Raises:
        S3Error: MalformedXML.
    """
    root = xml_tree.parse(
        document,
        "Tagging",
        bytes_max=SMALL_DOCUMENT_BYTES_MAX,
        elements_max=8 * tags_max + 16,
    )
    sets = root.children
    if len(sets) != 1 or sets[0].name != "TagSet":
        xml_tree.refuse()
    pairs: list[tuple[str, str]] = []
    for child in sets[0].children:
        key, value = child.find("Key"), child.find("Value")
        if child.name != "Tag" or len(child.children) != 2 or key is None or value is None:
            xml_tree.refuse()
        pairs.append((key, value))
    return tuple(pairs)


def delete(document: bytes) -> DeleteRequest:
    """The objects a DeleteObjects request names.

    Raises:
        S3Error: MalformedXML (also for no object or too many), NotImplemented for conditions by
            time and size, which must not be ignored.
    """
    root = xml_tree.parse(
        document, "Delete", bytes_max=DOCUMENT_BYTES_MAX, elements_max=6 * DELETE_KEYS_MAX + 16
    )
    items: list[DeleteItem] = []
    quiet = False
    for child in root.children:
        if child.name == "Quiet":
            quiet = child.text.strip().lower() == "true"
        elif child.name == "Object":
            items.append(_delete_item(child))
        else:
            xml_tree.refuse(f"Unexpected element {child.name[:64]}.")
    if not 1 <= len(items) <= DELETE_KEYS_MAX:
        xml_tree.refuse()
    return DeleteRequest(tuple(items), quiet)


def complete_multipart_upload(document: bytes) -> tuple[objects.CompletedPart, ...]:
    """The parts a CompleteMultipartUpload names, in the client's order (the store judges it).

    Raises:
        S3Error: MalformedXML (also for no part or too many), InvalidArgument for a part number
            outside 1 to ``PARTS_MAX``.
    """
    root = xml_tree.parse(
        document,
        "CompleteMultipartUpload",
        bytes_max=DOCUMENT_BYTES_MAX,
        elements_max=8 * PARTS_MAX + 16,
    )
    parts = tuple(_part(child) for child in root.children if child.name == "Part")
    if not 1 <= len(parts) <= PARTS_MAX or len(parts) != len(root.children):
        xml_tree.refuse()
    return parts


def _delete_item(element: xml_tree.Element) -> DeleteItem:
    key: str | None = None
    version_id: str | None = None
    if_match: str | None = None
    for child in element.children:
        if child.name == "Key":
            key = child.text
        elif child.name == "VersionId":
            version_id = child.text.strip()
        elif child.name == "ETag":
            if_match = conditions.unquoted(child.text) or None
        elif child.name in ("LastModifiedTime", "Size"):
            raise s3_error.make(
                "NotImplemented",
                f"The condition {child.name} of a delete is not implemented; use ETag.",
            )
        else:
            xml_tree.refuse(f"Unexpected element {child.name[:64]}.")
    if not key:
        xml_tree.refuse()
    return DeleteItem(key, version_id, if_match)


def _part(element: xml_tree.Element) -> objects.CompletedPart:
    number_text: str | None = None
    etag: str | None = None
    checksums: dict[str, str] = {}
    for child in element.children:
        name = child.name
        if name == "PartNumber":
            number_text = child.text.strip()
        elif name == "ETag":
            etag = conditions.unquoted(child.text)
        elif name in _CHECKSUMS:
            checksums[_CHECKSUMS[name]] = child.text.strip()
    if not number_text or not etag:
        xml_tree.refuse()
    if not (number_text.isascii() and number_text.lstrip("-").isdigit()):
        xml_tree.refuse()
    if len(number_text) > 6 or not 1 <= int(number_text) <= PARTS_MAX:
        raise s3_error.make(
            "InvalidArgument",
            f"Part number must be an integer between 1 and {PARTS_MAX}, inclusive",
            ArgumentName="PartNumber",
            ArgumentValue=number_text[:32],
        )
    return objects.CompletedPart(
        number=int(number_text), etag=etag, checksums=checksums or objects.EMPTY_MAP
    )
