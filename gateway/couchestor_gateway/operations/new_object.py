"""Whose a new object is, and who else may use it."""

from __future__ import annotations

from typing import NamedTuple

from couchestor_domain import access
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.protocol import acl_headers, s3_error


class NewObject(NamedTuple):
    """Owner and ACL of what a request writes."""

    owner: str
    acl: access.Acl | None


def of_request(request: s3_request.S3Request) -> NewObject:
    """Owner and ACL by the bucket's ownership and the request's ACL headers.

    What nobody signed for is the bucket owner's: an object that is nobody's could be read and
    cleaned up by nobody.

    Raises:
        S3Error: AccessControlListNotSupported where the bucket's owner owns everything,
            AccessDenied for a public ACL that the bucket blocks, and as ``acl_headers.parse``.
    """
    bucket = request.bucket_record
    rules = bucket.access
    is_given = acl_headers.is_given(request.headers, request.amz_names)
    if not rules.has_acls:
        if is_given and acl_headers.canned_name(request.headers) != acl_headers.OWNER_FULL_CONTROL:
            raise s3_error.make("AccessControlListNotSupported")
        return NewObject(bucket.owner, None)
    owner = request.caller or bucket.owner
    if not is_given:
        return NewObject(owner, None)
    if (
        rules.ownership is access.Ownership.BUCKET_OWNER_PREFERRED
        and acl_headers.canned_name(request.headers) == acl_headers.OWNER_FULL_CONTROL
    ):
        owner = bucket.owner
    acl = acl_headers.parse(
        request.headers, owner=owner, bucket_owner=bucket.owner, users=request.users
    )
    require_unblocked(rules, acl)
    return NewObject(owner, acl)


def require_unblocked(rules: access.BucketAccess, acl: access.Acl | None) -> None:
    """Stop a public ACL where the bucket blocks them. Raises S3Error: AccessDenied."""
    block = rules.public_access
    if block is not None and block.block_public_acls and access.grants_public_access(acl):
        raise s3_error.make(
            "AccessDenied", "Public access control lists are blocked by the bucket's settings."
        )
