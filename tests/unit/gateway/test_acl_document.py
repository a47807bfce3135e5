"""AccessControlPolicy documents come back as they were written; hostile ones are refused."""

from __future__ import annotations

import hypothesis
import known_users
import pytest
from hypothesis import strategies as st

from couchestor_domain import access
from couchestor_domain.access import Grant, Group, Ownership, Permission
from couchestor_gateway.protocol import access_documents, acl_document, s3_error

USERS = known_users.KnownUsers("ada", "bob", "ed$x")
_TYPED = '<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="{}">{}</Grantee>'
_ID = "<ID>bob</ID>"
_ACLS = st.lists(
    st.builds(
        Grant,
        st.sampled_from(list(Permission)),
        st.sampled_from(["ada", "bob", "ed$x"]),
        st.none(),
    )
    | st.builds(
        lambda permission, group: Grant(permission, group=group),
        st.sampled_from(list(Permission)),
        st.sampled_from(list(Group)),
    ),
    max_size=8,
).map(lambda grants: access.normal(tuple(grants), owner="ada"))


def _parse(document: str) -> access.Acl | None:
    return acl_document.parse(document.encode(), owner="ada", users=USERS)


def _policy(grants: str, owner: str = "<Owner><ID>ada</ID></Owner>") -> str:
    return (
        f"<AccessControlPolicy>{owner}<AccessControlList>{grants}</AccessControlList>"
        "</AccessControlPolicy>"
    )


def _grant(grantee: str, permission: str = "READ") -> str:
    return f"<Grant>{grantee}<Permission>{permission}</Permission></Grant>"


@hypothesis.given(_ACLS)
def test_what_is_told_can_be_put_back(acl: access.Acl | None) -> None:
    document = acl_document.write(acl, owner="ada", display_name=str.upper)
    assert acl_document.parse(document, owner="ada", users=USERS) == acl


def test_the_forms_that_clients_write() -> None:
    bob = (Grant(Permission.READ, "bob"),)
    assert _parse(_policy(_grant(_TYPED.format("CanonicalUser", _ID)))) == bob
    assert _parse(_policy(_grant(f"<Grantee>{_ID}<DisplayName>B</DisplayName></Grantee>"))) == bob
    email = "<EmailAddress> bob@example.com </EmailAddress>"
    assert _parse(_policy(_grant(_TYPED.format("AmazonCustomerByEmail", email)))) == bob
    assert _parse(_policy("", owner="")) == ()
    namespace = '<AccessControlPolicy xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    owned = _policy(_grant(f"<Grantee>{_ID}</Grantee>"))
    assert _parse(owned.replace("<AccessControlPolicy>", namespace)) == bob


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ("", "MalformedACLError"),
        ("<AccessControlPolicy/>", "MalformedACLError"),
        ("<Tagging/>", "MalformedACLError"),
        (_policy("")[:-9], "MalformedACLError"),
        ('<!DOCTYPE a [<!ENTITY e "x">]>' + _policy(""), "MalformedACLError"),
        (_policy("", owner="<Owner/>"), "MalformedACLError"),
        (_policy("", owner="<Owner><ID>bob</ID></Owner>"), "AccessDenied"),
        (_policy("", owner="<Owner><ID>ada</ID></Owner>" * 2), "MalformedACLError"),
        (_policy("<Other/>"), "MalformedACLError"),
        (_policy("<Grant/>"), "MalformedACLError"),
        (_policy(_grant(f"<Grantee>{_ID}</Grantee>", "ALL")), "MalformedACLError"),
        (_policy(_grant(f"<Grantee>{_ID}</Grantee>" * 2)), "MalformedACLError"),
        (_policy(_grant("<Grantee/>")), "MalformedACLError"),
        (_policy(_grant(f"<Grantee>{_ID}{_ID}</Grantee>")), "MalformedACLError"),
        (_policy(_grant(f"<Grantee>{_ID}<URI>x</URI></Grantee>")), "MalformedACLError"),
        (_policy(_grant(_TYPED.format("Group", _ID))), "MalformedACLError"),
        (_policy(_grant("<Grantee><ID>eve</ID></Grantee>")), "InvalidArgument"),
        (_policy(_grant("<Grantee><ID></ID></Grantee>")), "InvalidArgument"),
        (_policy(_grant("<Grantee><URI>AllUsers</URI></Grantee>")), "InvalidArgument"),
        (
            _policy(_grant("<Grantee><EmailAddress>a@b</EmailAddress></Grantee>")),
            "UnresolvableGrantByEmailAddress",
        ),
        (_policy(_grant(f"<Grantee>{_ID}</Grantee>") * 101), "MalformedACLError"),
        (_policy("<Grant>" * 7), "MalformedACLError"),
        (_policy("<x/>" * 100_000), "MalformedACLError"),
        (_policy("<!--" + "x" * 140_000 + "-->"), "MalformedACLError"),
    ],
)
def test_refused(document: str, code: str) -> None:
    with pytest.raises(s3_error.S3Error) as failure:
        _parse(document)
    assert failure.value.code == code


def test_as_many_grants_as_are_allowed() -> None:
    grants = [Grant(p, u) for p in Permission for u in ("ada", "bob")] * 10
    document = acl_document.write(tuple(grants), owner="ada", display_name=str)
    assert acl_document.parse(document, owner="ada", users=USERS) == tuple(grants[:10])


@pytest.mark.parametrize("ownership", [each for each in Ownership if each.value])
def test_ownership(ownership: Ownership) -> None:
    assert access_documents.parse_ownership(access_documents.write_ownership(ownership)) == (
        ownership
    )


@pytest.mark.parametrize(
    "rules",
    [
        "",
        "<Rule/>",
        "<Rule><ObjectOwnership/></Rule>",
        "<Rule><ObjectOwnership>Mine</ObjectOwnership></Rule>",
        "<Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule>" * 2,
    ],
)
def test_ownership_refused(rules: str) -> None:
    document = f"<OwnershipControls>{rules}</OwnershipControls>".encode()
    with pytest.raises(s3_error.S3Error) as failure:
        access_documents.parse_ownership(document)
    assert failure.value.code == "MalformedXML"


@hypothesis.given(st.lists(st.booleans(), min_size=4, max_size=4))
def test_blocks(flags: list[bool]) -> None:
    block = access.PublicAccessBlock(
        block_public_acls=flags[0],
        ignore_public_acls=flags[1],
        block_public_policy=flags[2],
        restrict_public_buckets=flags[3],
    )
    assert access_documents.parse_block(access_documents.write_block(block)) == block


@pytest.mark.parametrize("settings", ["<Other>true</Other>", "<BlockPublicAcls/>"])
def test_blocks_refused(settings: str) -> None:
    name = "PublicAccessBlockConfiguration"
    with pytest.raises(s3_error.S3Error) as failure:
        access_documents.parse_block(f"<{name}>{settings}</{name}>".encode())
    assert failure.value.code == "MalformedXML"
