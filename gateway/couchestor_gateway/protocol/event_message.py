"""What a target is told of a change, as S3 writes it.

Source: Amazon S3 User Guide, "Event message structure", version 2.1.
"""

from __future__ import annotations

import json
import urllib.parse

from couchestor_domain import notices
from couchestor_gateway.protocol import timestamps


def write(notice: notices.Notice) -> bytes:
    """The message of a notice: JSON with one record.

    The sequencer of a later change of a key is greater than that of an earlier one, compared as
    texts; all are of one length.
    """
    cause = notice.cause
    changed: dict[str, object] = {"key": urllib.parse.quote_plus(notice.key, safe="/")}
    if notice.size_bytes is not None:
        changed["size"] = notice.size_bytes
    if notice.etag:
        changed["eTag"] = notice.etag
    if notice.version_id:
        changed["versionId"] = notice.version_id
    changed["sequencer"] = f"{notice.sequence:016X}"
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": cause.region,
        "eventTime": timestamps.iso8601(notice.time_ns),
        "eventName": notice.event,
        "userIdentity": {"principalId": cause.requester or "Anonymous"},
        "requestParameters": {"sourceIPAddress": cause.source_ip},
        "responseElements": {
            "x-amz-request-id": cause.request_id,
            "x-amz-id-2": cause.host_id,
        },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": notice.configuration_id,
            "bucket": {
                "name": notice.bucket,
                "ownerIdentity": {"principalId": cause.bucket_owner},
                "arn": f"arn:aws:s3:::{notice.bucket}",
            },
            "object": changed,
        },
    }
    return json.dumps({"Records": [record]}, separators=(",", ":")).encode()
