"""From method and sub-resource to one operation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

from couchestor_gateway.edge import query_names, responses
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.operations import (
    abort_multipart_upload,
    complete_multipart_upload,
    copy_object,
    create_bucket,
    create_multipart_upload,
    delete_bucket,
    delete_bucket_cors,
    delete_bucket_lifecycle,
    delete_bucket_ownership_controls,
    delete_bucket_policy,
    delete_bucket_tagging,
    delete_object,
    delete_object_tagging,
    delete_objects,
    delete_public_access_block,
    get_bucket_acl,
    get_bucket_cors,
    get_bucket_lifecycle_configuration,
    get_bucket_location,
    get_bucket_logging,
    get_bucket_notification_configuration,
    get_bucket_ownership_controls,
    get_bucket_policy,
    get_bucket_policy_status,
    get_bucket_tagging,
    get_bucket_versioning,
    get_object,
    get_object_acl,
    get_object_attributes,
    get_object_legal_hold,
    get_object_lock_configuration,
    get_object_retention,
    get_object_tagging,
    get_public_access_block,
    head_bucket,
    head_object,
    list_buckets,
    list_multipart_uploads,
    list_object_versions,
    list_objects,
    list_objects_v2,
    list_parts,
    put_bucket_acl,
    put_bucket_cors,
    put_bucket_lifecycle_configuration,
    put_bucket_logging,
    put_bucket_notification_configuration,
    put_bucket_ownership_controls,
    put_bucket_policy,
    put_bucket_tagging,
    put_bucket_versioning,
    put_object,
    put_object_acl,
    put_object_legal_hold,
    put_object_lock_configuration,
    put_object_retention,
    put_object_tagging,
    put_public_access_block,
    upload_part,
    upload_part_copy,
)
from couchestor_gateway.protocol import form_headers, operation_needs, s3_error

_Run = Callable[[s3_request.S3Request], Awaitable[responses.Reply]]


class Operation(NamedTuple):
    """A named S3 operation."""

    name: str
    run: _Run
    need: operation_needs.Need
    """What its caller has to have."""


def _operation(name: str, run: _Run) -> Operation:
    """An operation; one that the table of needs does not have is a mistake told at import."""
    return Operation(name, run, operation_needs.NEEDS[name])


LIST_BUCKETS: Final = _operation("ListBuckets", list_buckets.run)
PUT_OBJECT: Final = _operation("PutObject", put_object.run)
COPY_OBJECT: Final = _operation("CopyObject", copy_object.run)
UPLOAD_PART: Final = _operation("UploadPart", upload_part.run)
UPLOAD_PART_COPY: Final = _operation("UploadPartCopy", upload_part_copy.run)
LIST_OBJECTS: Final = _operation("ListObjects", list_objects.run)
LIST_OBJECTS_V2: Final = _operation("ListObjectsV2", list_objects_v2.run)
CREATE_BUCKET: Final = _operation("CreateBucket", create_bucket.run)

_BUCKET: Final[dict[tuple[str, str], Operation]] = {
    ("GET", ""): LIST_OBJECTS,
    ("GET", "acl"): _operation("GetBucketAcl", get_bucket_acl.run),
    ("PUT", "acl"): _operation("PutBucketAcl", put_bucket_acl.run),
    ("GET", "cors"): _operation("GetBucketCors", get_bucket_cors.run),
    ("PUT", "cors"): _operation("PutBucketCors", put_bucket_cors.run),
    ("DELETE", "cors"): _operation("DeleteBucketCors", delete_bucket_cors.run),
    ("GET", "logging"): _operation("GetBucketLogging", get_bucket_logging.run),
    ("PUT", "logging"): _operation("PutBucketLogging", put_bucket_logging.run),
    ("GET", "notification"): _operation(
        "GetBucketNotificationConfiguration", get_bucket_notification_configuration.run
    ),
    ("PUT", "notification"): _operation(
        "PutBucketNotificationConfiguration", put_bucket_notification_configuration.run
    ),
    ("GET", "ownershipControls"): _operation(
        "GetBucketOwnershipControls", get_bucket_ownership_controls.run
    ),
    ("PUT", "ownershipControls"): _operation(
        "PutBucketOwnershipControls", put_bucket_ownership_controls.run
    ),
    ("DELETE", "ownershipControls"): _operation(
        "DeleteBucketOwnershipControls", delete_bucket_ownership_controls.run
    ),
    ("GET", "publicAccessBlock"): _operation("GetPublicAccessBlock", get_public_access_block.run),
    ("PUT", "publicAccessBlock"): _operation("PutPublicAccessBlock", put_public_access_block.run),
    ("DELETE", "publicAccessBlock"): _operation(
        "DeletePublicAccessBlock", delete_public_access_block.run
    ),
    ("GET", "policy"): _operation("GetBucketPolicy", get_bucket_policy.run),
    ("PUT", "policy"): _operation("PutBucketPolicy", put_bucket_policy.run),
    ("DELETE", "policy"): _operation("DeleteBucketPolicy", delete_bucket_policy.run),
    ("GET", "policyStatus"): _operation("GetBucketPolicyStatus", get_bucket_policy_status.run),
    ("GET", "lifecycle"): _operation(
        "GetBucketLifecycleConfiguration", get_bucket_lifecycle_configuration.run
    ),
    ("PUT", "lifecycle"): _operation(
        "PutBucketLifecycleConfiguration", put_bucket_lifecycle_configuration.run
    ),
    ("DELETE", "lifecycle"): _operation("DeleteBucketLifecycle", delete_bucket_lifecycle.run),
    ("GET", "object-lock"): _operation(
        "GetObjectLockConfiguration", get_object_lock_configuration.run
    ),
    ("PUT", "object-lock"): _operation(
        "PutObjectLockConfiguration", put_object_lock_configuration.run
    ),
    ("GET", "location"): _operation("GetBucketLocation", get_bucket_location.run),
    ("GET", "tagging"): _operation("GetBucketTagging", get_bucket_tagging.run),
    ("PUT", "tagging"): _operation("PutBucketTagging", put_bucket_tagging.run),
    ("DELETE", "tagging"): _operation("DeleteBucketTagging", delete_bucket_tagging.run),
    ("GET", "versioning"): _operation("GetBucketVersioning", get_bucket_versioning.run),
    ("GET", "versions"): _operation("ListObjectVersions", list_object_versions.run),
    ("GET", "uploads"): _operation("ListMultipartUploads", list_multipart_uploads.run),
    ("HEAD", ""): _operation("HeadBucket", head_bucket.run),
    ("PUT", ""): CREATE_BUCKET,
    ("PUT", "versioning"): _operation("PutBucketVersioning", put_bucket_versioning.run),
    ("DELETE", ""): _operation("DeleteBucket", delete_bucket.run),
    ("POST", "delete"): _operation("DeleteObjects", delete_objects.run),
}
_OBJECT: Final[dict[tuple[str, str], Operation]] = {
    ("GET", ""): _operation("GetObject", get_object.run),
    ("GET", "acl"): _operation("GetObjectAcl", get_object_acl.run),
    ("PUT", "acl"): _operation("PutObjectAcl", put_object_acl.run),
    ("GET", "tagging"): _operation("GetObjectTagging", get_object_tagging.run),
    ("PUT", "tagging"): _operation("PutObjectTagging", put_object_tagging.run),
    ("DELETE", "tagging"): _operation("DeleteObjectTagging", delete_object_tagging.run),
    ("GET", "retention"): _operation("GetObjectRetention", get_object_retention.run),
    ("PUT", "retention"): _operation("PutObjectRetention", put_object_retention.run),
    ("GET", "legal-hold"): _operation("GetObjectLegalHold", get_object_legal_hold.run),
    ("PUT", "legal-hold"): _operation("PutObjectLegalHold", put_object_legal_hold.run),
    ("GET", "attributes"): _operation("GetObjectAttributes", get_object_attributes.run),
    ("GET", "uploadId"): _operation("ListParts", list_parts.run),
    ("HEAD", ""): _operation("HeadObject", head_object.run),
    ("PUT", ""): PUT_OBJECT,
    ("PUT", "uploadId"): UPLOAD_PART,
    ("POST", "uploads"): _operation("CreateMultipartUpload", create_multipart_upload.run),
    ("POST", "uploadId"): _operation("CompleteMultipartUpload", complete_multipart_upload.run),
    ("DELETE", ""): _operation("DeleteObject", delete_object.run),
    ("DELETE", "uploadId"): _operation("AbortMultipartUpload", abort_multipart_upload.run),
}
_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})


def served() -> frozenset[Operation]:
    """Every operation that ``find`` can give."""
    others = (LIST_BUCKETS, COPY_OBJECT, UPLOAD_PART_COPY, LIST_OBJECTS_V2)
    return frozenset((*_BUCKET.values(), *_OBJECT.values(), *others))


def find(
    method: str, bucket: str, key: str, query: Mapping[str, str], headers: Mapping[str, str]
) -> Operation:
    """The operation a request asks for.

    Raises:
        S3Error: NotImplemented for sub-resources we do not serve, InvalidArgument for a query that
            contradicts itself, PreconditionFailed for what is posted to a bucket and is no form,
            MethodNotAllowed otherwise.
    """
    sub_resource = query_names.sub_resource(query) if query else ""
    if not bucket:
        if key:
            # "//key": naming no bucket must not turn into the service's own operations.
            raise s3_error.make("InvalidBucketName", BucketName="")
        if method == "GET" and not sub_resource:
            return LIST_BUCKETS
        raise _refusal(method, sub_resource)
    operation = (_OBJECT if key else _BUCKET).get((method, sub_resource))
    if operation is None:
        if method == "POST" and not key and not sub_resource:
            raise _refused_post(headers)
        raise _refusal(method, sub_resource)
    if method == "PUT" and key:
        if query and not sub_resource:
            _require_plain(query)
        if "x-amz-copy-source" in headers:
            return COPY_OBJECT if operation is PUT_OBJECT else UPLOAD_PART_COPY
    elif operation is LIST_OBJECTS and query:
        return _listing(query.get("list-type", ""))
    return operation


def find_unsigned(
    method: str, bucket: str, key: str, query: Mapping[str, str], headers: Mapping[str, str]
) -> Operation | None:
    """The operation that a request without a signature asks for; None for a form, whose fields may
    be signed.

    Raises:
        S3Error: PreconditionFailed for what else is posted to a bucket, AccessDenied for
            whatever ``find`` refuses: what is not served is no business of the unknown.
    """
    try:
        is_post = method == "POST" and bucket and not key and not query_names.sub_resource(query)
        if not is_post:
            return find(method, bucket, key, query, headers)
    except s3_error.S3Error as exc:
        raise s3_error.make("AccessDenied") from exc
    if not form_headers.is_form(headers.get("Content-Type", "")):
        raise _refused_post(headers)
    return None


def _require_plain(query: Mapping[str, str]) -> None:
    """Refuse a write of an object that means another write, of a part or over a version."""
    if "partNumber" in query:
        raise s3_error.make("InvalidArgument", "partNumber needs an uploadId")
    if "versionId" in query:
        raise s3_error.make(
            "InvalidArgument",
            "This operation does not accept a version-id.",
            ArgumentName="versionId",
            ArgumentValue=query["versionId"],
        )


def _listing(version: str) -> Operation:
    if version == "2":
        return LIST_OBJECTS_V2
    if version in ("", "1"):
        return LIST_OBJECTS
    raise s3_error.make(
        "InvalidArgument",
        "There is no such version of the listing.",
        ArgumentName="list-type",
        ArgumentValue=version,
    )


def _refused_post(headers: Mapping[str, str]) -> s3_error.S3Error:
    """The refusal of what is posted to a bucket, and is not a form that its fields sign."""
    if form_headers.is_form(headers.get("Content-Type", "")):
        return s3_error.make(
            "InvalidArgument",
            "Only one auth mechanism allowed: a form is signed by its fields; post it without a"
            " signature in its headers or its URL.",
            ArgumentName="Authorization",
        )
    if "x-amz-request-route" in headers:
        # WriteGetObjectResponse, whose path reads like a bucket.
        return _refusal("POST", "WriteGetObjectResponse")
    return s3_error.make(
        "PreconditionFailed",
        Condition="Bucket POST must be of the enclosure-type multipart/form-data",
    )


def _refusal(method: str, sub_resource: str) -> s3_error.S3Error:
    if method in _METHODS and sub_resource:
        return s3_error.make(
            "NotImplemented",
            "A header or query you provided implies functionality that is not implemented",
        )
    return s3_error.make(
        "MethodNotAllowed", "The specified method is not allowed against this resource"
    )
