"""What the names in a request's query ask for: a sub-resource, or parameters of the operation.

S3 names a sub-resource by a query name without a value: ``PUT /bucket/key?tagging`` writes tags
where ``PUT /bucket/key`` writes the object. A sub-resource that is taken for a harmless parameter
therefore destroys data, and AWS adds one every few months. So a name that is neither known nor has
a value, and reads like a sub-resource, is refused as one that is not implemented.

A name with a value that nobody knows is ignored, as AWS does: tools mark requests so, and no
sub-resource has come with a value but ``uploadId``. So is one without a value that has other
characters than letters and dashes, as the numbers have that keep caches from answering.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from couchestor_gateway.protocol import s3_error

SUB_RESOURCES: Final = frozenset(
    {
        "abac",
        "accelerate",
        "acl",
        "analytics",
        "annotation",
        "append",
        "attributes",
        "cors",
        "delete",
        "encryption",
        "intelligent-tiering",
        "inventory",
        "legal-hold",
        "lifecycle",
        "location",
        "logging",
        "metadataAnnotationTable",
        "metadataConfiguration",
        "metadataInventoryTable",
        "metadataJournalTable",
        "metadataTable",
        "metrics",
        "notification",
        "object-lock",
        "ownershipControls",
        "policy",
        "policyStatus",
        "publicAccessBlock",
        "renameObject",
        "replication",
        "requestPayment",
        "restore",
        "retention",
        "select",
        "session",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
        "versioning",
        "versions",
        "website",
    }
)
PARAMETERS: Final = frozenset(
    {
        "bucket-region",
        "continuation-token",
        "delimiter",
        "encoding-type",
        "fetch-owner",
        "key-marker",
        "list-type",
        "marker",
        "max-buckets",
        "max-keys",
        "max-parts",
        "max-uploads",
        "partNumber",
        "part-number-marker",
        "prefix",
        "response-cache-control",
        "response-content-disposition",
        "response-content-encoding",
        "response-content-language",
        "response-content-type",
        "response-expires",
        "start-after",
        "upload-id-marker",
        "version-id-marker",
        "versionId",
        # The operation's name, which some SDKs add.
        "x-id",
    }
)
"""Parameters of the operations served, which clients also send without a value."""


def sub_resource(query: Mapping[str, str]) -> str:
    """The sub-resource a query names; empty for none.

    Raises:
        S3Error: NotImplemented for a name that may be a sub-resource we have never heard of,
            InvalidArgument for two sub-resources at once.
    """
    found = ""
    for name, value in query.items():
        if name in SUB_RESOURCES:
            if found:
                raise s3_error.make(
                    "InvalidArgument",
                    f"Conflicting query string parameters: {found}, {name}",
                    ArgumentName="ResourceType",
                    ArgumentValue=found,
                )
            found = name
        elif not value and name not in PARAMETERS and _may_be_sub_resource(name):
            raise s3_error.make(
                "NotImplemented",
                f"The query parameter {name[:64]} implies functionality that is not implemented.",
            )
    return found


def _may_be_sub_resource(name: str) -> bool:
    letters = name.replace("-", "")
    return letters.isascii() and letters.isalpha() and name[:6].lower() != "x-amz-"
