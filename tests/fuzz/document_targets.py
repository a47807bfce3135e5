"""Every XML document of requests; what is read and written again reads as the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tests.fuzz import signature_targets, target

from couchestor_domain import locking
from couchestor_gateway.protocol import (
    access_documents,
    acl_document,
    lifecycle_document,
    lock_documents,
    tags,
    xml_reading,
)

_EVER: Final = -(2**80)
_TAGS: Final = b"<TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet>"
_GRANTEE: Final = (
    b'<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="Group">'
    b"<URI>http://acs.amazonaws.com/groups/global/AllUsers</URI></Grantee>"
)


class _Users(signature_targets.OneKey):
    """Everybody is known."""

    def user(self, user_id: str) -> Any:
        return object()


EVERYBODY: Final = _Users()


def _read_tags(document: bytes) -> Any:
    return tags.checked(xml_reading.tagging(document, tags_max=50), count_max=50)


def _read_acl(document: bytes) -> Any:
    return acl_document.parse(document, owner="ada", users=EVERYBODY)


def _write_acl(acl: Any) -> bytes:
    return acl_document.write(acl, owner="ada", display_name=str.title)


def _read_retention(document: bytes) -> locking.Retention | None:
    return lock_documents.parse_retention(document, now_ns=_EVER)


def _write_retention(retention: locking.Retention | None) -> bytes:
    return b"<Retention/>" if retention is None else lock_documents.write_retention(retention)


_TOKENS: Final = (
    b"<",
    b">",
    b"</",
    b"/>",
    b"&amp;",
    b"&#x41;",
    b"&#0;",
    b"&#xD;",
    b"&x;",
    b"<![CDATA[",
    b"]]>",
    b"<!--",
    b"-->",
    b"<?a b?>",
    b'<!DOCTYPE a [<!ENTITY x "y">]>',
    b' xmlns="urn:a"',
    b' xmlns:p="urn:a"',
    b" a='b'",
    b'<?xml version="1.0" encoding="UTF-16"?>',
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b" ",
    b"-1",
    b"99999999999999999999",
    b"2026-11-29T00:00:00Z",
    b"9999-12-31T23:59:59+14:00",
)


def _documents(
    name: str,
    read: Callable[[bytes], Any],
    write: Callable[[Any], bytes] | None,
    *seeds: bytes,
    tokens: tuple[bytes, ...] = (),
) -> target.Target:
    def run(data: bytes) -> None:
        with target.s3_refusals():
            found = read(data)
            if write is not None:
                again = write(found)
                # Moments are written to the millisecond: equal is what is written then.
                assert write(read(again)) == again
                if not isinstance(found, locking.Retention):
                    assert read(again) == found

    return target.Target(name=f"{name} document", run=run, seeds=seeds, tokens=(*_TOKENS, *tokens))


TARGETS: Final = (
    _documents(
        "new bucket",
        xml_reading.create_bucket_configuration,
        None,
        b"<CreateBucketConfiguration><LocationConstraint>eu</LocationConstraint>"
        b"</CreateBucketConfiguration>",
    ),
    _documents(
        "versioning",
        xml_reading.versioning_configuration,
        None,
        b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
        tokens=(b"<MfaDelete>Enabled</MfaDelete>",),
    ),
    _documents("tags", _read_tags, tags.document, b"<Tagging>" + _TAGS + b"</Tagging>"),
    _documents(
        "deletes",
        xml_reading.delete,
        None,
        b"<Delete><Quiet>true</Quiet><Object><Key>a</Key><VersionId>null</VersionId>"
        b"<ETag>&quot;e&quot;</ETag></Object></Delete>",
        tokens=(b"<Object><Key>a</Key></Object>", b"<Size>1</Size>"),
    ),
    _documents(
        "completed upload",
        xml_reading.complete_multipart_upload,
        None,
        b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>e</ETag>"
        b"<ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part></CompleteMultipartUpload>",
        tokens=(b"<Part><PartNumber>1</PartNumber><ETag>e</ETag></Part>",),
    ),
    _documents(
        "ownership",
        access_documents.parse_ownership,
        access_documents.write_ownership,
        b"<OwnershipControls><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule>"
        b"</OwnershipControls>",
    ),
    _documents(
        "public access",
        access_documents.parse_block,
        access_documents.write_block,
        b"<PublicAccessBlockConfiguration><BlockPublicAcls>1</BlockPublicAcls>"
        b"<RestrictPublicBuckets>true</RestrictPublicBuckets></PublicAccessBlockConfiguration>",
    ),
    _documents(
        "access control",
        _read_acl,
        _write_acl,
        b"<AccessControlPolicy><Owner><ID>ada</ID></Owner><AccessControlList><Grant>"
        + _GRANTEE
        + b"<Permission>READ</Permission></Grant></AccessControlList></AccessControlPolicy>",
        b"<AccessControlPolicy><AccessControlList><Grant><Grantee><ID>bob</ID></Grantee>"
        b"<Permission>WRITE_ACP</Permission></Grant></AccessControlList></AccessControlPolicy>",
        tokens=(
            b"<Grant>" + _GRANTEE + b"<Permission>READ</Permission></Grant>",
            b"<EmailAddress>a@b</EmailAddress>",
        ),
    ),
    _documents(
        "lifecycle",
        lifecycle_document.parse,
        lifecycle_document.write,
        b"<LifecycleConfiguration><Rule><ID>a</ID><Filter><And><Prefix>p/</Prefix>"
        b"<Tag><Key>a</Key><Value>b</Value></Tag><ObjectSizeLessThan>9</ObjectSizeLessThan>"
        b"</And></Filter><Status>Enabled</Status><Expiration><Days>1</Days></Expiration>"
        b"<NoncurrentVersionExpiration><NoncurrentDays>2</NoncurrentDays>"
        b"<NewerNoncurrentVersions>3</NewerNoncurrentVersions></NoncurrentVersionExpiration>"
        b"</Rule></LifecycleConfiguration>",
        b"<LifecycleConfiguration><Rule><Prefix/><Status>Disabled</Status><Expiration>"
        b"<Date>2027-01-01T00:00:00Z</Date></Expiration></Rule><Rule><Filter/>"
        b"<Status>Enabled</Status><AbortIncompleteMultipartUpload><DaysAfterInitiation>4"
        b"</DaysAfterInitiation></AbortIncompleteMultipartUpload><Expiration>"
        b"<ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration></Rule>"
        b"</LifecycleConfiguration>",
        tokens=(
            b"<Rule><Filter/><Status>Enabled</Status><Expiration><Days>1</Days></Expiration></Rule>",
            b"<Tag><Key>c</Key><Value>d</Value></Tag>",
            b"<ObjectSizeGreaterThan>1</ObjectSizeGreaterThan>",
            b"<Transition><StorageClass>GLACIER</StorageClass></Transition>",
        ),
    ),
    _documents(
        "bucket lock",
        lock_documents.parse_configuration,
        lock_documents.write_configuration,
        b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>"
        b"<DefaultRetention><Mode>GOVERNANCE</Mode><Days>1</Days></DefaultRetention></Rule>"
        b"</ObjectLockConfiguration>",
        tokens=(b"<Years>1</Years>",),
    ),
    _documents(
        "retention",
        _read_retention,
        _write_retention,
        b"<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2027-01-01T00:00:00.5Z"
        b"</RetainUntilDate></Retention>",
        b"<Retention/>",
    ),
    _documents(
        "legal hold",
        lock_documents.parse_legal_hold,
        lock_documents.write_legal_hold,
        b"<LegalHold><Status>ON</Status></LegalHold>",
    ),
)
