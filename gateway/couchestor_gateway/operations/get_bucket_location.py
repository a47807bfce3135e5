"""GET /bucket?location."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import xml_writing


async def run(request: s3_request.S3Request) -> responses.Reply:
    """The bucket's region; us-east-1 is written as the empty constraint."""
    bucket = await request.buckets.get_bucket(request.bucket)
    region = "" if bucket.region == "us-east-1" else bucket.region
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    name = "LocationConstraint"
    text = xml_writing.escape(region)
    xml = f'{head}<{name} xmlns="{xml_writing.NAMESPACE}">{text}</{name}>'
    return responses.document(xml.encode())
