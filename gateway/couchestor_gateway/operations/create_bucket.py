"""PUT /bucket."""

from __future__ import annotations

from couchestor_domain import errors
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import bucket_names, s3_error, xml_reading


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Create a bucket. Creating one's own again answers 200, as us-east-1 does."""
    bucket_names.validate(request.bucket)
    document = await request.document()
    region = request.region
    if document:
        asked = xml_reading.create_bucket_configuration(document)
        if asked and asked != region:
            raise s3_error.make(
                "IllegalLocationConstraintException",
                f"The {asked} location constraint is incompatible with the region {region}.",
            )
    try:
        await request.buckets.create_bucket(name=request.bucket, owner=request.owner, region=region)
    except errors.BucketAlreadyExistsError as exc:
        if exc.context.get("owner") != request.owner:
            raise
    return responses.Reply(200, {"Location": f"/{request.bucket}"})
