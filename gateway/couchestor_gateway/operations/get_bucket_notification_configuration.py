"""GET /bucket?notification."""

from __future__ import annotations

from couchestor_domain import objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import notification_rules


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Which events are told to whom; an empty configuration where none is."""
    stored = request.bucket_record.settings.get(objects.Setting.NOTIFICATIONS)
    return responses.document(notification_rules.write(()) if stored is None else stored)
