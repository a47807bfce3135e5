"""PUT /bucket?lifecycle."""

from __future__ import annotations

import dataclasses

from couchestor_domain import lifecycle
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import expiration_header
from couchestor_gateway.protocol import lifecycle_document, s3_error


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Replace the rules by which what a bucket holds expires."""
    minimum = request.headers.get(expiration_header.TRANSITION_MINIMUM, "").strip()
    if minimum not in ("", *expiration_header.TRANSITION_MINIMA):
        raise s3_error.make(
            "InvalidArgument",
            "The transition default minimum object size is not valid.",
            ArgumentName=expiration_header.TRANSITION_MINIMUM,
            ArgumentValue=minimum[:64],
        )
    document = await request.document(required=True)
    # A thousand rules take a while to read.
    rules = await request.offload(lifecycle_document.parse, document)
    assert isinstance(rules, lifecycle.Configuration), rules
    configuration = dataclasses.replace(rules, transition_minimum=minimum)
    await request.buckets.put_lifecycle(
        bucket=request.bucket,
        configuration=configuration,
        bucket_owner=request.bucket_record.owner,
    )
    return responses.Reply(200, expiration_header.of_configuration(configuration))
