"""Errors as S3 clients see them: code, HTTP status, message, further XML elements.

One table gives every code its status and default message, another maps the domain's errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from couchestor_domain import errors, objects
from couchestor_gateway.protocol import timestamps


class S3Error(errors.ClientError):
    """A refusal with its S3 code.

    A ``ClientError``, so that a body whose framing or digest is wrong can raise it through the
    object store, as ``BodySource`` promises.

    Args:
        code: As in AWS's table of error codes.
        status: HTTP status.
        message: Shown to people as it is.
        extra: Further elements of the error document, in order.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        code: str,
        status: int,
        message: str,
        extra: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] = objects.EMPTY_MAP,
    ) -> None:
        super().__init__(_text(message))
        self.code = code
        self.status = status
        self.extra: Mapping[str, str] = MappingProxyType(
            {name: _text(value) for name, value in extra.items()} if extra else {}
        )
        self.headers = headers

    def __repr__(self) -> str:
        return f"S3Error({self.code!r}, {self.status}, {self.message!r})"


CODES: Final[Mapping[str, tuple[int, str]]] = MappingProxyType(
    {
        "AccessControlListNotSupported": (400, "The bucket does not allow ACLs"),
        "AccessDenied": (403, "Access Denied"),
        "AccessForbidden": (403, "CORSResponse: CORS is not enabled for this bucket."),
        "AuthorizationHeaderMalformed": (400, "The authorization header is malformed."),
        "AuthorizationQueryParametersError": (
            400,
            "Error parsing the X-Amz-* authorization query parameters.",
        ),
        "BadDigest": (
            400,
            "The Content-MD5 or checksum value that you specified did not match what the server"
            " received.",
        ),
        "BadRequest": (400, "Bad Request"),
        "BucketAlreadyExists": (
            409,
            "The requested bucket name is not available. The bucket namespace is shared by all"
            " users of the system. Select a different name and try again.",
        ),
        "BucketAlreadyOwnedByYou": (
            409,
            "Your previous request to create the named bucket succeeded and you already own it.",
        ),
        "BucketNotEmpty": (409, "The bucket you tried to delete is not empty."),
        "ConditionalRequestConflict": (
            409,
            "A conflicting operation occurred during the request; try it again.",
        ),
        "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed object size."),
        "EntityTooSmall": (
            400,
            "Your proposed upload is smaller than the minimum allowed object size.",
        ),
        "ExpiredToken": (400, "The provided token has expired."),
        "IllegalLocationConstraintException": (
            400,
            "The specified location constraint is not valid for this region.",
        ),
        "IllegalVersioningConfigurationException": (
            400,
            "The versioning configuration specified in the request is invalid.",
        ),
        "IncompleteBody": (
            400,
            "You did not provide the number of bytes specified by the Content-Length HTTP header.",
        ),
        "IncorrectNumberOfFilesInPostRequest": (
            400,
            "POST requires exactly one file upload per request.",
        ),
        "InsufficientStorage": (507, "There is no space left for the write."),
        "InternalError": (500, "We encountered an internal error. Please try again."),
        "InvalidAccessKeyId": (
            403,
            "The AWS Access Key Id you provided does not exist in our records.",
        ),
        "InvalidArgument": (400, "Invalid Argument"),
        "InvalidBucketAclWithObjectOwnership": (
            400,
            "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting",
        ),
        "InvalidBucketState": (
            409,
            "The request is not valid with the current state of the bucket.",
        ),
        "InvalidBucketName": (400, "The specified bucket is not valid."),
        "InvalidDigest": (400, "The Content-MD5 you specified is not valid."),
        "InvalidLocationConstraint": (400, "The specified location constraint is not valid."),
        "InvalidPart": (
            400,
            "One or more of the specified parts could not be found. The part may not have been"
            " uploaded, or the specified entity tag may not match the part's entity tag.",
        ),
        "InvalidPartNumber": (416, "The requested partnumber is not satisfiable"),
        "InvalidPartOrder": (
            400,
            "The list of parts was not in ascending order. The parts list must be specified in"
            " order by part number.",
        ),
        "InvalidPolicyDocument": (
            400,
            "The content of the form does not meet the conditions specified in the policy"
            " document.",
        ),
        "InvalidRange": (416, "The requested range is not satisfiable"),
        "InvalidRequest": (400, "Invalid Request"),
        "InvalidRetentionPeriod": (
            400,
            "The retention period must be a positive integer value.",
        ),
        "InvalidStorageClass": (400, "The storage class you specified is not valid"),
        "InvalidTargetBucketForLogging": (
            400,
            "The target bucket for logging does not exist, is not owned by you, or does not have"
            " the appropriate grants for the log-delivery group.",
        ),
        "InvalidToken": (400, "The provided token is malformed or otherwise not valid."),
        "InvalidURI": (400, "Couldn't parse the specified URI."),
        "KeyTooLongError": (400, "Your key is too long"),
        "MalformedACLError": (
            400,
            "The XML you provided was not well-formed or did not validate against our published"
            " schema",
        ),
        "MalformedPOSTRequest": (
            400,
            "The body of your POST request is not well-formed multipart/form-data.",
        ),
        "MalformedPolicy": (400, "This policy contains invalid Json"),
        "MalformedTrailerError": (
            400,
            "The request contained trailing data that was not well-formed or did not conform to"
            " our published schema.",
        ),
        "MalformedXML": (
            400,
            "The XML you provided was not well-formed or did not validate against our published"
            " schema",
        ),
        "MaxMessageLengthExceeded": (400, "Your request was too big."),
        "MaxPostPreDataLengthExceeded": (
            400,
            "Your POST request fields preceding the upload file were too large.",
        ),
        "MetadataTooLarge": (
            400,
            "Your metadata headers exceed the maximum allowed metadata size",
        ),
        "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
        "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
        "MissingRequestBodyError": (400, "Request Body is empty"),
        "MissingSecurityHeader": (400, "Your request is missing a required header."),
        "NoSuchBucket": (404, "The specified bucket does not exist"),
        "NoSuchBucketPolicy": (404, "The bucket policy does not exist"),
        "NoSuchConfiguration": (404, "The specified configuration does not exist."),
        "NoSuchCORSConfiguration": (404, "The CORS configuration does not exist"),
        "NoSuchKey": (404, "The specified key does not exist."),
        "NoSuchLifecycleConfiguration": (404, "The lifecycle configuration does not exist"),
        "NoSuchObjectLockConfiguration": (
            404,
            "The specified object does not have a ObjectLock configuration",
        ),
        "NoSuchUpload": (
            404,
            "The specified upload does not exist. The upload ID may be invalid, or the upload may"
            " have been aborted or completed.",
        ),
        "InvalidTag": (400, "The tag provided was not a valid tag."),
        "NoSuchPublicAccessBlockConfiguration": (
            404,
            "The public access block configuration was not found",
        ),
        "NoSuchTagSet": (404, "The TagSet does not exist"),
        "NoSuchVersion": (404, "The specified version does not exist."),
        "NotImplemented": (
            501,
            "A header or query you provided implies functionality that is not implemented",
        ),
        "NotModified": (304, "Not Modified"),
        "ObjectLockConfigurationNotFoundError": (
            404,
            "Object Lock configuration does not exist for this bucket",
        ),
        "OperationAborted": (
            409,
            "A conflicting conditional operation is currently in progress against this resource."
            " Try again.",
        ),
        "OwnershipControlsNotFoundError": (
            404,
            "The bucket ownership controls were not found",
        ),
        "PermanentRedirect": (301, "The bucket must be addressed using another endpoint."),
        "PreconditionFailed": (
            412,
            "At least one of the pre-conditions you specified did not hold",
        ),
        "QuotaExceeded": (403, "The quota of the bucket or tenant is used up."),
        "RequestHeaderSectionTooLarge": (
            400,
            "Your request header and metadata sections exceed the maximum allowed size.",
        ),
        "RequestTimeTooSkewed": (
            403,
            "The difference between the request time and the current time is too large.",
        ),
        "RequestTimeout": (
            400,
            "Your socket connection to the server was not read from or written to within the"
            " timeout period.",
        ),
        "ServiceUnavailable": (503, "The service cannot serve the request now."),
        "SignatureDoesNotMatch": (
            403,
            "The request signature we calculated does not match the signature you provided. Check"
            " your key and signing method.",
        ),
        "SlowDown": (503, "Please reduce your request rate."),
        "TooManyBuckets": (400, "You have attempted to create more buckets than allowed."),
        "UnexpectedContent": (400, "This request does not support content"),
        "UnresolvableGrantByEmailAddress": (
            400,
            "The e-mail address you provided does not match any account on record.",
        ),
        "XAmzContentSHA256Mismatch": (
            400,
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        ),
    }
)
"""Code -> HTTP status and default message."""

_FROM_STORE: Final[tuple[tuple[type[errors.CouchestorError], str], ...]] = (
    (errors.NoSuchBucketError, "NoSuchBucket"),
    (errors.NoSuchKeyError, "NoSuchKey"),
    (errors.NoSuchVersionError, "NoSuchVersion"),
    (errors.DeleteMarkerError, "MethodNotAllowed"),
    (errors.NoSuchUploadError, "NoSuchUpload"),
    (errors.BucketAlreadyExistsError, "BucketAlreadyExists"),
    (errors.BucketNotEmptyError, "BucketNotEmpty"),
    (errors.VersionLockedError, "AccessDenied"),
    (errors.InvalidBucketStateError, "InvalidBucketState"),
    (errors.PreconditionFailedError, "PreconditionFailed"),
    (errors.InvalidPartOrderError, "InvalidPartOrder"),
    (errors.InvalidPartError, "InvalidPart"),
    (errors.PartTooSmallError, "EntityTooSmall"),
    (errors.BodyTruncatedError, "IncompleteBody"),
    (errors.BodyTooLongError, "EntityTooLarge"),
    (errors.DigestMismatchError, "BadDigest"),
    (errors.QuotaExceededError, "QuotaExceeded"),
    (errors.TenantNotFoundError, "AccessDenied"),
    (errors.StoreReadOnlyError, "ServiceUnavailable"),
    (errors.InsufficientShardsError, "ServiceUnavailable"),
    # Categories. A broken store is 503 even where bytes are also wrong: another node, or the
    # same one after repair, can serve the request. Integrity alone is an internal error.
    (errors.CapacityError, "InsufficientStorage"),
    (errors.TransientError, "SlowDown"),
    (errors.UnavailableError, "ServiceUnavailable"),
    (errors.IntegrityError, "InternalError"),
)
"""Most specific first; the first class that fits wins."""

_NO_SETTING: Final = MappingProxyType(
    {
        objects.Setting.TAGS: "NoSuchTagSet",
        objects.Setting.CORS: "NoSuchCORSConfiguration",
        # Asked for where the bucket's record is at hand: there an empty one stands for none.
        objects.Setting.NOTIFICATIONS: "NoSuchConfiguration",
        objects.Setting.LOGGING: "NoSuchConfiguration",
    }
)
"""What each setting of a bucket is missed by."""

_OWN_MESSAGE: Final = frozenset(
    {
        errors.PreconditionFailedError,
        errors.DigestMismatchError,
        errors.BodyTooLongError,
        errors.BodyTruncatedError,
    }
)
"""Domain errors whose message is about the client's request and goes out with the default."""

_MESSAGES: Final[Mapping[type[errors.CouchestorError], str]] = MappingProxyType(
    {
        errors.StoreReadOnlyError: (
            "Too few of the store's devices are healthy for a write to be safe: writes wait until"
            " devices are back, reads go on."
        ),
        errors.InsufficientShardsError: (
            "Too few of the devices that hold the object can be read: it can be read again once"
            " devices are back."
        ),
        errors.VersionLockedError: "Access Denied because object protected by object lock.",
    }
)
"""What is said in place of the code's message."""

_ELEMENTS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = MappingProxyType(
    {
        "BucketAlreadyExists": (("bucket", "BucketName"),),
        "BucketNotEmpty": (("bucket", "BucketName"),),
        "EntityTooSmall": (
            ("size_bytes", "ProposedSize"),
            ("size_bytes_min", "MinSizeAllowed"),
            ("part", "PartNumber"),
            ("etag", "ETag"),
        ),
        "InvalidPart": (("part", "PartNumber"),),
        "NoSuchBucket": (("bucket", "BucketName"),),
        "NoSuchCORSConfiguration": (("bucket", "BucketName"),),
        "NoSuchKey": (("key", "Key"),),
        "NoSuchTagSet": (("bucket", "BucketName"),),
        "NoSuchUpload": (("upload_id", "UploadId"),),
        "NoSuchVersion": (("key", "Key"), ("version_id", "VersionId")),
        "PreconditionFailed": (("condition", "Condition"),),
    }
)
"""Code -> what of an error's context S3 tells in which element."""


def make(code: str, message: str | None = None, **extra: str) -> S3Error:
    """An error of the table; ``extra`` become further elements of its document."""
    status, default = CODES[code]
    return S3Error(code, status, default if message is None else message, extra)


def from_store(error: errors.CouchestorError) -> S3Error:
    """The S3 face of an error of the object store.

    Messages of the store that speak of devices, paths or stripes stay inside: the client gets the
    code's default message. An ``S3Error`` comes back as it is.
    """
    if isinstance(error, S3Error):
        return error
    if isinstance(error, errors.NoSuchSettingError) and "setting" in error.context:
        code = _NO_SETTING[objects.Setting(error.context["setting"])]
        return make(code, **_elements(code, error))
    for kind, code in _FROM_STORE:
        if isinstance(error, kind):
            message = _MESSAGES.get(kind)
            if kind is errors.InvalidBucketStateError:
                message = error.message
            if kind in _OWN_MESSAGE:
                message = f"{CODES[code][1].rstrip('.')}: {error.message}"
            extra = _elements(code, error)
            if isinstance(error, errors.TransientError):
                extra["RetryAfter"] = str(max(1, round(error.retry_after_seconds)))
            made = make(code, message, **extra)
            made.headers = _headers(error)
            return made
    return make("InternalError")


def _elements(code: str, error: errors.CouchestorError) -> dict[str, str]:
    return {
        element: str(error.context[name])
        for name, element in _ELEMENTS.get(code, ())
        if error.context.get(name) is not None
    }


def _headers(error: errors.CouchestorError) -> Mapping[str, str]:
    """What tells that a delete marker is in the way."""
    context = error.context
    if isinstance(error, errors.NoSuchKeyError) and "delete_marker" in context:
        return {
            "x-amz-delete-marker": "true",
            "x-amz-version-id": str(context["delete_marker"]),
        }
    if isinstance(error, errors.DeleteMarkerError) and "modified_ns" in context:
        return {
            "Allow": "DELETE",
            "Last-Modified": timestamps.http_date(int(str(context["modified_ns"]))),
            "x-amz-delete-marker": "true",
            "x-amz-version-id": str(context["version_id"]),
        }
    return objects.EMPTY_MAP


def _text(value: str) -> str:
    # Requests may carry bytes that are not UTF-8 as lone surrogates, which no document can hold.
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
