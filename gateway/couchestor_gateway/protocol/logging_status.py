"""Where the log of a bucket's requests goes: its BucketLoggingStatus, and the keys of log objects.

Source: AWS S3 API reference, "LoggingEnabled"; Amazon S3 User Guide, "Enabling Amazon S3 server
access logging".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, NoReturn

from couchestor_domain import access, units
from couchestor_gateway.ports import credentials as credential_port
from couchestor_gateway.protocol import acl_document, object_keys, timestamps, xml_tree, xml_writing

_BYTES_MAX: Final = 64 * units.KIB
_PREFIX_BYTES_MAX: Final = object_keys.BYTES_MAX - 256
"""Leaves room for what follows it in a key."""
_PERMISSIONS: Final = frozenset(
    {access.Permission.READ, access.Permission.WRITE, access.Permission.FULL_CONTROL}
)


class KeyFormat(enum.Enum):
    """How the key of a log object goes on behind its prefix."""

    SIMPLE = "SimplePrefix"
    """Time of delivery and something unique."""
    EVENT_TIME = "EventTime"
    """Partitioned by owner, region, bucket and day of the requests; before the same."""
    DELIVERY_TIME = "DeliveryTime"
    """Partitioned as well, by the day of delivery."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logging:
    """Where a bucket's log goes."""

    bucket: str
    prefix: str
    key_format: KeyFormat = KeyFormat.SIMPLE
    grants: access.Acl = ()
    """On each log object, beside what its owner may."""


def parse(document: bytes, *, users: credential_port.CredentialStore | None) -> Logging | None:
    """What a BucketLoggingStatus says; None: there is to be no log.

    Args:
        users: Whom grants may name; None: they have been looked at.

    Raises:
        S3Error: MalformedXML, and as ``grantees.grant``.
    """
    root = xml_tree.parse(document, "BucketLoggingStatus", bytes_max=_BYTES_MAX, elements_max=1024)
    if not root.children:
        return None
    if len(root.children) != 1 or root.children[0].name != "LoggingEnabled":
        xml_tree.refuse()
    bucket = prefix = None
    key_format = KeyFormat.SIMPLE
    grants: access.Acl = ()
    seen: set[str] = set()
    for child in root.children[0].children:
        if child.name in seen:
            xml_tree.refuse()
        seen.add(child.name)
        if child.name == "TargetBucket":
            bucket = child.text.strip()
        elif child.name == "TargetPrefix":
            prefix = child.text
        elif child.name == "TargetObjectKeyFormat":
            key_format = _key_format(child)
        elif child.name == "TargetGrants":
            grants = acl_document.grants(child, users=users)
        else:
            xml_tree.refuse(f"Unexpected element {child.name[:64]}.")
    if not bucket or prefix is None:
        xml_tree.refuse()
    if len(prefix.encode()) > _PREFIX_BYTES_MAX or not xml_writing.is_writable(prefix):
        xml_tree.refuse(f"A TargetPrefix has at most {_PREFIX_BYTES_MAX} bytes.")
    if not _PERMISSIONS.issuperset(grant.permission for grant in grants):
        xml_tree.refuse("TargetGrants give READ, WRITE or FULL_CONTROL.")
    return Logging(bucket=bucket, prefix=prefix, key_format=key_format, grants=grants)


def write(
    logging: Logging | None, *, users: credential_port.CredentialStore | None = None
) -> bytes:
    """The document that tells where a log goes.

    Args:
        users: Gives the names shown for those whom grants name.
    """
    xml = xml_writing.Document("BucketLoggingStatus")
    if logging is None:
        return xml.finish()
    xml.open("LoggingEnabled").text("TargetBucket", logging.bucket)

    def name_of(user_id: str) -> str:
        user = None if users is None else users.user(user_id)
        return user_id if user is None else user.display_name

    if logging.grants:
        acl_document.write_grants(
            xml.open("TargetGrants"), logging.grants, display_name=name_of
        ).close("TargetGrants")
    xml.text("TargetPrefix", logging.prefix).open("TargetObjectKeyFormat")
    if logging.key_format is KeyFormat.SIMPLE:
        xml.open("SimplePrefix").close("SimplePrefix")
    else:
        xml.open("PartitionedPrefix")
        xml.text("PartitionDateSource", logging.key_format.value).close("PartitionedPrefix")
    return xml.close("TargetObjectKeyFormat").close("LoggingEnabled").finish()


def log_key(
    logging: Logging,
    *,
    source_owner: str,
    source_bucket: str,
    region: str,
    event_ns: int,
    now_ns: int,
    unique: str,
) -> str:
    """The key of a log object.

    Args:
        event_ns: When one of its requests came, since the Unix epoch: they are of one day.
        now_ns: When it is delivered.
        unique: Letters and digits that no other has.
    """
    at = timestamps.log_key_time(now_ns)
    if logging.key_format is KeyFormat.SIMPLE:
        return f"{logging.prefix}{at}-{unique}"
    day_ns = now_ns
    if logging.key_format is KeyFormat.EVENT_TIME:
        # As S3: the day of the requests, at no time of it.
        day_ns = event_ns
        at = f"{timestamps.log_key_time(event_ns)[:10]}-00-00-00"
    year, month, day = timestamps.log_key_time(day_ns)[:10].split("-")
    partition = f"{source_owner}/{region}/{source_bucket}/{year}/{month}/{day}"
    return f"{logging.prefix}{partition}/{at}-{unique}"


def _key_format(element: xml_tree.Element) -> KeyFormat:
    if len(element.children) != 1:
        _refuse_format()
    (found,) = element.children
    if found.name == KeyFormat.SIMPLE.value and not found.children:
        return KeyFormat.SIMPLE
    if found.name != "PartitionedPrefix":
        _refuse_format()
    source = (found.find("PartitionDateSource") or KeyFormat.DELIVERY_TIME.value).strip()
    for known in (KeyFormat.EVENT_TIME, KeyFormat.DELIVERY_TIME):
        if source == known.value:
            return known
    _refuse_format()


def _refuse_format() -> NoReturn:
    xml_tree.refuse("A TargetObjectKeyFormat is simple, or partitioned by a time that S3 knows.")
