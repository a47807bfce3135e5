"""Ownership controls and public access blocks as XML."""

from __future__ import annotations

from typing import Final

from couchestor_domain import access, units
from couchestor_gateway.protocol import xml_tree, xml_writing

_BYTES_MAX: Final = 16 * units.KIB
_ELEMENTS_MAX: Final = 32
_SETTINGS: Final = {
    "BlockPublicAcls": "block_public_acls",
    "IgnorePublicAcls": "ignore_public_acls",
    "BlockPublicPolicy": "block_public_policy",
    "RestrictPublicBuckets": "restrict_public_buckets",
}
_FLAGS: Final = {"true": True, "1": True, "false": False, "0": False}


def parse_ownership(document: bytes) -> access.Ownership:
    """What an OwnershipControls document asks for. Raises S3Error: MalformedXML."""
    root = xml_tree.parse(
        document, "OwnershipControls", bytes_max=_BYTES_MAX, elements_max=_ELEMENTS_MAX
    )
    if len(root.children) != 1 or root.children[0].name != "Rule":
        xml_tree.refuse("Ownership controls have one rule.")
    rule = root.children[0]
    if len(rule.children) != 1 or rule.children[0].name != "ObjectOwnership":
        xml_tree.refuse()
    ownership = ownership_of(rule.children[0].text.strip())
    return ownership or xml_tree.refuse()


def ownership_of(text: str) -> access.Ownership | None:
    """The ownership that a text names; None for an unknown one."""
    known = {each.value: each for each in access.Ownership if each.value}
    return known.get(text)


def write_ownership(ownership: access.Ownership) -> bytes:
    """The document that tells who owns what is written."""
    xml = xml_writing.Document("OwnershipControls").open("Rule")
    return xml.text("ObjectOwnership", ownership.value).close("Rule").finish()


def parse_block(document: bytes) -> access.PublicAccessBlock:
    """What a PublicAccessBlockConfiguration asks for; what it leaves out is not blocked.

    Raises S3Error: MalformedXML.
    """
    root = xml_tree.parse(
        document,
        "PublicAccessBlockConfiguration",
        bytes_max=_BYTES_MAX,
        elements_max=_ELEMENTS_MAX,
    )
    flags: dict[str, bool] = {}
    for child in root.children:
        flag = _FLAGS.get(child.text.strip().lower())
        field = _SETTINGS.get(child.name)
        if field is None or flag is None or field in flags:
            xml_tree.refuse()
        flags[field] = flag
    return access.PublicAccessBlock(**flags)


def write_block(block: access.PublicAccessBlock) -> bytes:
    """The document that tells what is blocked."""
    xml = xml_writing.Document("PublicAccessBlockConfiguration")
    for name, field in _SETTINGS.items():
        xml.flag(name, getattr(block, field))
    return xml.finish()
