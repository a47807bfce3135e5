"""GET /bucket?policyStatus."""

from __future__ import annotations

from couchestor_domain import access
from couchestor_gateway.edge import read_policies, responses
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.protocol import xml_writing


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Whether a bucket is public, by its policy or by its ACL; a private one needs no policy."""
    bucket = request.bucket_record
    rules = bucket.access
    policy = read_policies.of(bucket)
    has_public_acl = (
        rules.has_acls and rules.heeds_groups and access.grants_public_access(rules.acl)
    )
    xml = xml_writing.Document("PolicyStatus")
    xml.flag("IsPublic", has_public_acl or (policy is not None and policy.is_public))
    return responses.document(xml.finish())
