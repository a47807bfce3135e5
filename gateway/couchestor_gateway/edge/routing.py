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
    delete_bucket_tagging,
    delete_object,
    delete_object_tagging,
    delete_objects,
    get_bucket_location,
    get_bucket_tagging,
    get_bucket_versioning,
    get_object,
    get_object_attributes,
    get_object_tagging,
    head_bucket,
    head_object,
    list_buckets,
    list_multipart_uploads,
    list_object_versions,
    list_objects,
    list_objects_v2,
    list_parts,
    put_bucket_tagging,
    put_bucket_versioning,
    put_object,
    put_object_tagging,
    upload_part,
    upload_part_copy,
)
from couchestor_gateway.protocol import form_headers, s3_error


class Operation(NamedTuple):
    """A named S3 operation."""

    name: str
    run: Callable[[s3_request.S3Request], Awaitable[responses.Reply]]


LIST_BUCKETS: Final = Operation("ListBuckets", list_buckets.run)
PUT_OBJECT: Final = Operation("PutObject", put_object.run)
COPY_OBJECT: Final = Operation("CopyObject", copy_object.run)
UPLOAD_PART: Final = Operation("UploadPart", upload_part.run)
UPLOAD_PART_COPY: Final = Operation("UploadPartCopy", upload_part_copy.run)
LIST_OBJECTS: Final = Operation("ListObjects", list_objects.run)
LIST_OBJECTS_V2: Final = Operation("ListObjectsV2", list_objects_v2.run)
CREATE_BUCKET: Final = Operation("CreateBucket", create_bucket.run)

_BUCKET: Final[dict[tuple[str, str], Operation]] = {
    ("GET", ""): LIST_OBJECTS,
    ("GET", "location"): Operation("GetBucketLocation", get_bucket_location.run),
    ("GET", "tagging"): Operation("GetBucketTagging", get_bucket_tagging.run),
    ("PUT", "tagging"): Operation("PutBucketTagging", put_bucket_tagging.run),
    ("DELETE", "tagging"): Operation("DeleteBucketTagging", delete_bucket_tagging.run),
    ("GET", "versioning"): Operation("GetBucketVersioning", get_bucket_versioning.run),
    ("GET", "versions"): Operation("ListObjectVersions", list_object_versions.run),
    ("GET", "uploads"): Operation("ListMultipartUploads", list_multipart_uploads.run),
    ("HEAD", ""): Operation("HeadBucket", head_bucket.run),
    ("PUT", ""): CREATE_BUCKET,
    ("PUT", "versioning"): Operation("PutBucketVersioning", put_bucket_versioning.run),
    ("DELETE", ""): Operation("DeleteBucket", delete_bucket.run),
    ("POST", "delete"): Operation("DeleteObjects", delete_objects.run),
}
_OBJECT: Final[dict[tuple[str, str], Operation]] = {
    ("GET", ""): Operation("GetObject", get_object.run),
    ("GET", "tagging"): Operation("GetObjectTagging", get_object_tagging.run),
    ("PUT", "tagging"): Operation("PutObjectTagging", put_object_tagging.run),
    ("DELETE", "tagging"): Operation("DeleteObjectTagging", delete_object_tagging.run),
    ("GET", "attributes"): Operation("GetObjectAttributes", get_object_attributes.run),
    ("GET", "uploadId"): Operation("ListParts", list_parts.run),
    ("HEAD", ""): Operation("HeadObject", head_object.run),
    ("PUT", ""): PUT_OBJECT,
    ("PUT", "uploadId"): UPLOAD_PART,
    ("POST", "uploads"): Operation("CreateMultipartUpload", create_multipart_upload.run),
    ("POST", "uploadId"): Operation("CompleteMultipartUpload", complete_multipart_upload.run),
    ("DELETE", ""): Operation("DeleteObject", delete_object.run),
    ("DELETE", "uploadId"): Operation("AbortMultipartUpload", abort_multipart_upload.run),
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


def require_form(
    method: str, bucket: str, key: str, query: Mapping[str, str], headers: Mapping[str, str]
) -> None:
    """Let pass what is posted to a bucket as a form: of what is not signed before its body, only
    that can be signed in it.

    Raises:
        S3Error: PreconditionFailed for what else is posted to a bucket, AccessDenied for
            everything else.
    """
    if method != "POST" or not bucket or key or query_names.sub_resource(query):
        raise s3_error.make("AccessDenied")
    if not form_headers.is_form(headers.get("Content-Type", "")):
        raise _refused_post(headers)


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
