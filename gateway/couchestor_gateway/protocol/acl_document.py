"""Access control lists as XML: the body of PUT ?acl and the answer to GET ?acl."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NoReturn

from couchestor_domain import access, units
from couchestor_gateway.ports import credentials as credential_port
from couchestor_gateway.protocol import grantees, s3_error, xml_tree, xml_writing

_BYTES_MAX: Final = 128 * units.KIB
_ELEMENTS_MAX: Final = 6 * access.GRANTS_MAX + 16
_XSI: Final = "http://www.w3.org/2001/XMLSchema-instance"
_TYPE: Final = f"{_XSI}}}type"
_KINDS: Final = {
    "CanonicalUser": ("ID", "id"),
    "AmazonCustomerByEmail": ("EmailAddress", "emailaddress"),
    "Group": ("URI", "uri"),
}
"""Type of a grantee -> the element that names it, and its kind for ``grantees``."""
_GRANTEE_ELEMENTS: Final = {"ID", "DisplayName", "EmailAddress", "URI"}


def parse(
    document: bytes, *, owner: str, users: credential_port.CredentialStore
) -> access.Acl | None:
    """The ACL that an AccessControlPolicy gives.

    Args:
        owner: Of what it is to be an ACL of; a document that names another one is refused, because
            owners do not change.

    Raises:
        S3Error: MalformedACLError (also for more than ``GRANTS_MAX`` grants), AccessDenied for
            another owner, and as ``grantees.grant``.
    """
    try:
        root = xml_tree.parse(
            document, "AccessControlPolicy", bytes_max=_BYTES_MAX, elements_max=_ELEMENTS_MAX
        )
    except s3_error.S3Error as exc:
        raise s3_error.make("MalformedACLError") from exc
    named = [child for child in root.children if child.name == "Owner"]
    lists = [child for child in root.children if child.name == "AccessControlList"]
    if len(named) + len(lists) != len(root.children) or len(named) > 1 or len(lists) != 1:
        _refuse()
    if named:
        owner_id = named[0].find("ID")
        if owner_id is None:
            _refuse()
        if owner_id != owner:
            raise s3_error.make(
                "AccessDenied", "The owner cannot be changed by an access control list."
            )
    return access.normal(grants(lists[0], users=users), owner=owner)


def grants(
    element: xml_tree.Element, *, users: credential_port.CredentialStore | None
) -> access.Acl:
    """The grants that are an element's children.

    Args:
        users: Whom they may name; None: they have been looked at, and may be gone.

    Raises:
        S3Error: MalformedACLError, and as ``grantees.grant``.
    """
    if len(element.children) > access.GRANTS_MAX:
        raise grantees.too_many()
    known = _Anybody() if users is None else users
    return tuple(_grant(child, known) for child in element.children)


def write(acl: access.Acl | None, *, owner: str, display_name: Callable[[str], str]) -> bytes:
    """The document that tells an ACL.

    Args:
        display_name: Gives the name shown for a user's id.
    """
    xml = xml_writing.Document("AccessControlPolicy")
    xml.owner(owner, display_name(owner)).open("AccessControlList")
    write_grants(xml, access.grants_of(acl, owner=owner), display_name=display_name)
    return xml.close("AccessControlList").finish()


def write_grants(
    xml: xml_writing.Document, acl: access.Acl, *, display_name: Callable[[str], str]
) -> xml_writing.Document:
    """Add an element for each grant. Returns the document."""
    for grant in acl:
        xml.open("Grant")
        kind = "CanonicalUser" if grant.group is None else "Group"
        xml.open("Grantee", f'xmlns:xsi="{_XSI}" xsi:type="{kind}"')
        if grant.group is None:
            xml.text("ID", grant.user_id).text("DisplayName", display_name(grant.user_id))
        else:
            xml.text("URI", grantees.GROUP_URIS[grant.group])
        xml.close("Grantee").text("Permission", grant.permission.value).close("Grant")
    return xml


class _Anybody:
    """Knows every user by the id."""

    def find(self, access_key: str) -> credential_port.Credential | None:
        return None

    def user(self, user_id: str) -> credential_port.User | None:
        return credential_port.User(user_id=user_id, display_name=user_id)

    def user_by_email(self, email: str) -> credential_port.User | None:
        return None

    def is_principal(self, name: str) -> bool:
        return True


def _grant(element: xml_tree.Element, users: credential_port.CredentialStore) -> access.Grant:
    if element.name != "Grant" or sorted(child.name for child in element.children) != [
        "Grantee",
        "Permission",
    ]:
        _refuse()
    (grantee,) = (child for child in element.children if child.name == "Grantee")
    try:
        permission = access.Permission((element.find("Permission") or "").strip())
    except ValueError:
        _refuse()
    names = [child.name for child in grantee.children]
    if len(set(names)) != len(names) or not set(names) <= _GRANTEE_ELEMENTS:
        _refuse()
    # The type may carry a prefix of a namespace.
    told = grantee.attributes.get(_TYPE, "").rpartition(":")[2]
    kinds = [kind for kind, (name, _) in _KINDS.items() if name in names]
    if len(kinds) != 1 or told not in ("", kinds[0]):
        _refuse()
    name, kind = _KINDS[kinds[0]]
    return grantees.grant(permission, kind, (grantee.find(name) or "").strip(), users=users)


def _refuse() -> NoReturn:
    raise s3_error.make("MalformedACLError")
