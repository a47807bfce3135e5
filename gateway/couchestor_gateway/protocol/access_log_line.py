"""A line of a bucket's log, as S3 writes it: fields in their order, ``-`` for none.

What clients choose (keys, the request line, two headers, Host) can hold nothing that ends a field
or a line: blanks outside of quotes, quotes, control characters and what is not ASCII are written in
percent-encoding. Signatures in a query are left out: a log is read by others than those who may do
what a URL allows.

Source: Amazon S3 User Guide, "Amazon S3 server access log format".
"""

from __future__ import annotations

import re
import urllib.parse
from typing import Final, NamedTuple

from couchestor_gateway.protocol import timestamps

_RESOURCES: Final = {
    "ListBuckets": "REST.GET.SERVICE",
    "CreateBucket": "REST.PUT.BUCKET",
    "DeleteBucket": "REST.DELETE.BUCKET",
    "HeadBucket": "REST.HEAD.BUCKET",
    "ListObjects": "REST.GET.BUCKET",
    "ListObjectsV2": "REST.GET.BUCKET",
    "ListObjectVersions": "REST.GET.BUCKETVERSIONS",
    "ListMultipartUploads": "REST.GET.UPLOADS",
    "GetBucketLocation": "REST.GET.LOCATION",
    "GetBucketTagging": "REST.GET.TAGGING",
    "PutBucketTagging": "REST.PUT.TAGGING",
    "DeleteBucketTagging": "REST.DELETE.TAGGING",
    "GetBucketVersioning": "REST.GET.VERSIONING",
    "PutBucketVersioning": "REST.PUT.VERSIONING",
    "GetBucketOwnershipControls": "REST.GET.OWNERSHIP_CONTROLS",
    "PutBucketOwnershipControls": "REST.PUT.OWNERSHIP_CONTROLS",
    "DeleteBucketOwnershipControls": "REST.DELETE.OWNERSHIP_CONTROLS",
    "GetPublicAccessBlock": "REST.GET.PUBLIC_ACCESS_BLOCK",
    "PutPublicAccessBlock": "REST.PUT.PUBLIC_ACCESS_BLOCK",
    "DeletePublicAccessBlock": "REST.DELETE.PUBLIC_ACCESS_BLOCK",
    "GetBucketPolicy": "REST.GET.BUCKETPOLICY",
    "PutBucketPolicy": "REST.PUT.BUCKETPOLICY",
    "DeleteBucketPolicy": "REST.DELETE.BUCKETPOLICY",
    "GetBucketPolicyStatus": "REST.GET.POLICY_STATUS",
    "GetBucketAcl": "REST.GET.ACL",
    "PutBucketAcl": "REST.PUT.ACL",
    "GetBucketCors": "REST.GET.CORS",
    "PutBucketCors": "REST.PUT.CORS",
    "DeleteBucketCors": "REST.DELETE.CORS",
    "GetBucketLogging": "REST.GET.LOGGING_STATUS",
    "PutBucketLogging": "REST.PUT.LOGGING_STATUS",
    "GetBucketNotificationConfiguration": "REST.GET.NOTIFICATION",
    "PutBucketNotificationConfiguration": "REST.PUT.NOTIFICATION",
    "GetBucketLifecycleConfiguration": "REST.GET.LIFECYCLE",
    "PutBucketLifecycleConfiguration": "REST.PUT.LIFECYCLE",
    "DeleteBucketLifecycle": "REST.DELETE.LIFECYCLE",
    "GetObjectLockConfiguration": "REST.GET.OBJECT_LOCK_CONFIGURATION",
    "PutObjectLockConfiguration": "REST.PUT.OBJECT_LOCK_CONFIGURATION",
    "GetObjectRetention": "REST.GET.OBJECT_LOCK_RETENTION",
    "PutObjectRetention": "REST.PUT.OBJECT_LOCK_RETENTION",
    "GetObjectLegalHold": "REST.GET.OBJECT_LOCK_LEGALHOLD",
    "PutObjectLegalHold": "REST.PUT.OBJECT_LOCK_LEGALHOLD",
    "DeleteObjects": "REST.POST.MULTI_OBJECT_DELETE",
    "PostObject": "REST.POST.OBJECT",
    "GetObject": "REST.GET.OBJECT",
    "HeadObject": "REST.HEAD.OBJECT",
    "PutObject": "REST.PUT.OBJECT",
    "DeleteObject": "REST.DELETE.OBJECT",
    "CopyObject": "REST.COPY.OBJECT",
    "GetObjectAcl": "REST.GET.ACL",
    "PutObjectAcl": "REST.PUT.ACL",
    "GetObjectTagging": "REST.GET.OBJECT_TAGGING",
    "PutObjectTagging": "REST.PUT.OBJECT_TAGGING",
    "DeleteObjectTagging": "REST.DELETE.OBJECT_TAGGING",
    "GetObjectAttributes": "REST.GET.OBJECT_ATTRIBUTES",
    "CreateMultipartUpload": "REST.POST.UPLOADS",
    "CompleteMultipartUpload": "REST.POST.UPLOAD",
    "AbortMultipartUpload": "REST.DELETE.UPLOAD",
    "ListParts": "REST.GET.UPLOAD",
    "UploadPart": "REST.PUT.PART",
    "UploadPartCopy": "REST.COPY.PART",
    "Preflight": "REST.OPTIONS.PREFLIGHT",
}
"""Operation -> what S3's logs call it."""

_SECRET: Final = re.compile(r"(?i)((?:x-amz-)?signature|x-amz-security-token)=[^&\s]*")
_TEXT_MAX: Final = 4_096
"""Characters of one text that a client chose."""


class Served(NamedTuple):
    """A request that was answered, or broken off."""

    bucket_owner: str
    bucket: str
    time_ns: int
    """When it came, since the Unix epoch."""
    remote_ip: str
    requester: str
    request_id: str
    operation: str
    """Its name in this gateway."""
    method: str
    key: str
    target: str
    """Path and query as sent."""
    http_version: str
    status: int
    error_code: str
    sent_bytes: int
    object_bytes: int | None
    total_ms: int
    referer: str
    user_agent: str
    version_id: str
    host_id: str
    signature: str
    """``SigV4``, ``SigV2`` or empty."""
    cipher: str
    auth_type: str
    """``AuthHeader``, ``QueryString`` or empty."""
    host: str
    tls_version: str


def write(served: Served) -> bytes:
    """The line of a request, with its end."""
    target = _SECRET.sub(r"\1=-", served.target[:_TEXT_MAX])
    operation = _RESOURCES.get(served.operation, f"REST.{served.method}.UNKNOWN")
    fields = (
        _plain(served.bucket_owner),
        _plain(served.bucket),
        f"[{timestamps.log_time(served.time_ns)}]",
        _plain(served.remote_ip),
        _plain(served.requester),
        _plain(served.request_id),
        operation,
        urllib.parse.quote(served.key, safe="/-._~", errors="replace") or "-",
        _quoted(f"{served.method} {target} {served.http_version}"),
        str(served.status),
        _plain(served.error_code),
        _count(served.sent_bytes),
        _count(served.object_bytes),
        str(served.total_ms),
        "-",
        _quoted(served.referer),
        _quoted(served.user_agent),
        _plain(served.version_id),
        _plain(served.host_id),
        _plain(served.signature),
        _plain(served.cipher),
        _plain(served.auth_type),
        _plain(served.host),
        _plain(served.tls_version),
        # No access points, and what let a request in is not kept.
        "-",
        "-",
    )
    return f"{' '.join(fields)}\n".encode("ascii")


def _quoted(text: str) -> str:
    return f'"{_escaped(text[:_TEXT_MAX], blanks=True) or "-"}"'


def _plain(text: str) -> str:
    return _escaped(text[:_TEXT_MAX], blanks=False) or "-"


def _count(number: int | None) -> str:
    return str(number) if number else "-"


def _escaped(text: str, *, blanks: bool) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and (blanks or " " not in text):
        return text
    return "".join(
        character
        if character.isascii()
        and character.isprintable()
        and character != '"'
        and (blanks or character != " ")
        else urllib.parse.quote(character, safe="", errors="replace")
        for character in text
    )
