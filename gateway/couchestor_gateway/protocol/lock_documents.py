"""Object locks as XML: of buckets, retentions and legal holds of versions."""

from __future__ import annotations

from typing import Final

from couchestor_domain import locking, units
from couchestor_gateway.protocol import lock_headers, s3_error, timestamps, xml_tree
from couchestor_gateway.protocol.xml_writing import Document

_BYTES_MAX: Final = 16 * units.KIB
_ELEMENTS_MAX: Final = 16
_MODES: Final = {mode.value: mode for mode in locking.Mode}
_HOLDS: Final = {"ON": True, "OFF": False}


def parse_configuration(document: bytes) -> locking.BucketLock:
    """What a bucket is to do. Raises S3Error: MalformedXML, InvalidRetentionPeriod."""
    root = xml_tree.parse(
        document, "ObjectLockConfiguration", bytes_max=_BYTES_MAX, elements_max=_ELEMENTS_MAX
    )
    names = [child.name for child in root.children]
    if sorted(names) not in (["ObjectLockEnabled"], ["ObjectLockEnabled", "Rule"]):
        xml_tree.refuse()
    if (root.find("ObjectLockEnabled") or "").strip() != "Enabled":
        xml_tree.refuse()
    for child in root.children:
        if child.name == "Rule":
            if [each.name for each in child.children] != ["DefaultRetention"]:
                xml_tree.refuse()
            return locking.BucketLock(default=_default(child.children[0]))
    return locking.BucketLock()


def write_configuration(lock: locking.BucketLock) -> bytes:
    """The document that tells it."""
    xml = Document("ObjectLockConfiguration").text("ObjectLockEnabled", "Enabled")
    default = lock.default
    if default is not None:
        xml.open("Rule").open("DefaultRetention").text("Mode", default.mode.value)
        if default.days is not None:
            xml.text("Days", default.days)
        if default.years is not None:
            xml.text("Years", default.years)
        xml.close("DefaultRetention").close("Rule")
    return xml.finish()


def parse_retention(document: bytes, *, now_ns: int) -> locking.Retention | None:
    """The retention that a version is to have; None for an empty document, which removes it.

    Raises:
        S3Error: MalformedXML, InvalidArgument as ``lock_headers.until``.
    """
    root = xml_tree.parse(document, "Retention", bytes_max=_BYTES_MAX, elements_max=_ELEMENTS_MAX)
    if not root.children:
        return None
    if sorted(child.name for child in root.children) != ["Mode", "RetainUntilDate"]:
        xml_tree.refuse()
    mode = _MODES.get((root.find("Mode") or "").strip())
    if mode is None:
        xml_tree.refuse()
    text = root.find("RetainUntilDate") or ""
    return locking.Retention(mode=mode, until_ns=lock_headers.until(text, now_ns=now_ns))


def write_retention(retention: locking.Retention) -> bytes:
    """The document that tells it."""
    xml = Document("Retention").text("Mode", retention.mode.value)
    return xml.text("RetainUntilDate", timestamps.iso8601(retention.until_ns)).finish()


def parse_legal_hold(document: bytes) -> bool:
    """Whether a version is to be held. Raises S3Error: MalformedXML."""
    root = xml_tree.parse(document, "LegalHold", bytes_max=_BYTES_MAX, elements_max=_ELEMENTS_MAX)
    hold = _HOLDS.get((root.find("Status") or "").strip())
    if hold is None or len(root.children) != 1:
        xml_tree.refuse()
    return hold


def write_legal_hold(legal_hold: bool) -> bytes:
    """The document that tells it."""
    return Document("LegalHold").text("Status", "ON" if legal_hold else "OFF").finish()


def _default(element: xml_tree.Element) -> locking.DefaultRetention:
    mode = _MODES.get((element.find("Mode") or "").strip())
    if mode is None or len(element.children) != 2:
        xml_tree.refuse()
    days, years = element.find("Days"), element.find("Years")
    if days is not None:
        count = _period(days, locking.DAYS_MAX)
        return locking.DefaultRetention(mode=mode, days=count)
    if years is None:
        xml_tree.refuse()
    return locking.DefaultRetention(mode=mode, years=_period(years, locking.YEARS_MAX))


def _period(text: str, most: int) -> int:
    text = text.strip()
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        xml_tree.refuse()
    if int(text) <= 0:
        raise s3_error.make(
            "InvalidRetentionPeriod", "Default retention period must be a positive integer value."
        )
    if int(text) > most:
        raise s3_error.make("InvalidRetentionPeriod", "Default retention period too large.")
    return int(text)
