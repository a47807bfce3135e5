"""GET /bucket?logging."""

from __future__ import annotations

from couchestor_domain import objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import logging_status


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Where the bucket's log goes; an empty status where nothing is logged."""
    stored = request.bucket_record.settings.get(objects.Setting.LOGGING)
    return responses.document(logging_status.write(None) if stored is None else stored)
