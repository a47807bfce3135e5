"""What the operations on ACLs have in common."""

from __future__ import annotations

from couchestor_domain import access
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import acl_document, acl_headers, s3_error


async def given(
    request: s3_request.S3Request, *, owner: str, bucket_owner: str | None
) -> access.Acl | None:
    """The ACL that a PUT ?acl gives, in its headers or in its body.

    Args:
        owner: Of what the ACL is replaced of.
        bucket_owner: Of the bucket an object is in; None for the ACL of a bucket.

    Raises:
        S3Error: AccessControlListNotSupported where the bucket's owner owns everything,
            MissingSecurityHeader for no ACL, UnexpectedContent for one in headers and body, and as
            ``acl_headers.parse`` and ``acl_document.parse``.
    """
    document = await request.document()
    if not request.bucket_record.access.has_acls:
        raise s3_error.make("AccessControlListNotSupported")
    if acl_headers.is_given(request.headers, request.amz_names):
        if document:
            raise s3_error.make("UnexpectedContent")
        return acl_headers.parse(
            request.headers, owner=owner, bucket_owner=bucket_owner, users=request.users
        )
    if not document:
        raise s3_error.make(
            "MissingSecurityHeader",
            "Your request was missing a required header: give an access control list in x-amz-acl,"
            " in x-amz-grant-..., or in the body.",
            MissingHeaderName="x-amz-acl",
        )
    return acl_document.parse(document, owner=owner, users=request.users)


def answer(
    request: s3_request.S3Request, acl: access.Acl | None, *, owner: str, version: dict[str, str]
) -> responses.Reply:
    """The answer to GET ?acl.

    Args:
        version: Headers that name the version it is of.
    """
    if not request.bucket_record.access.has_acls:
        acl = None
    document = acl_document.write(acl, owner=owner, display_name=request.display_name)
    return responses.document(document, headers=version)
