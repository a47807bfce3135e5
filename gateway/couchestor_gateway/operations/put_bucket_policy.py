"""PUT /bucket?policy."""

from __future__ import annotations

import dataclasses
import functools
from typing import Final

from couchestor_domain import access
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import bucket_owner
from couchestor_gateway.protocol import s3_error
from couchestor_gateway.protocol.policy import bucket_policy, principals, statements

_CONFIRMATION: Final = "x-amz-confirm-remove-self-bucket-access"


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Replace a bucket's policy; 204 means that every later request is judged by it.

    What the confirmation asks for takes nothing from the owner, who can always come back here.
    """
    bucket_owner.require(request)
    _check_confirmation(request.headers.get(_CONFIRMATION, ""))
    document = await request.document()
    users, bucket = request.users, request.bucket
    # Of a policy that is made to be slow to read, the event loop is not to notice.
    policy = await request.offload(
        functools.partial(
            bucket_policy.parse,
            document,
            bucket=bucket,
            is_user=users.is_principal,
        )
    )
    assert isinstance(policy, bucket_policy.BucketPolicy), policy
    is_public, text = policy.is_public, document.decode()

    def change(rules: access.BucketAccess) -> access.BucketAccess:
        block = rules.public_access
        if block is not None and block.block_public_policy and is_public:
            raise s3_error.make(
                "AccessDenied",
                f"User: {principals.arn_of(_name(request))} is not authorized to perform:"
                f' s3:PutBucketPolicy on resource: "{statements.RESOURCE_PREFIX}{bucket}" because'
                " public policies are blocked by the BlockPublicPolicy block public access"
                " setting.",
            )
        return dataclasses.replace(rules, policy=text)

    await request.buckets.change_access(
        bucket=bucket, change=change, bucket_owner=request.bucket_record.owner
    )
    return responses.Reply(204)


def _name(request: s3_request.S3Request) -> str:
    return request.account() if request.member is None else request.member.principal


def _check_confirmation(value: str) -> None:
    if value.lower() not in ("", "true", "false"):
        raise s3_error.make(
            "InvalidArgument",
            f"{_CONFIRMATION} is true or false.",
            ArgumentName=_CONFIRMATION,
            ArgumentValue=value[:64],
        )
