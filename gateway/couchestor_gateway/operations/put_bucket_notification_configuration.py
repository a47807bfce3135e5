"""PUT /bucket?notification."""

from __future__ import annotations

from couchestor_domain import objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import notification_rules


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Replace which events are told to whom; an empty configuration tells nobody.

    That a target is one of the node's is all that is looked at: none is sent anything.
    """
    rules = notification_rules.parse(
        await request.document(required=True), targets=request.notification_targets
    )
    await request.buckets.put_setting(
        bucket=request.bucket,
        setting=objects.Setting.NOTIFICATIONS,
        value=notification_rules.write(rules) if rules else None,
        bucket_owner=request.bucket_record.owner,
    )
    return responses.Reply(200)
