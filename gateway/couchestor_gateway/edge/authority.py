"""Whether the sender of a request has what something needs: by policy, and by ACL.

    the bucket's policy     then
    denies an action        no
    allows it               yes; but of an object that is not the bucket owner's its ACL decides
    says nothing            the ACL decides, or whose the bucket is

The owner may read, replace and delete the policy whatever it says. A policy that lets the public in
lets in nobody but the owner where the bucket restricts those.

A user of a tenant who is not its root may what the tenant may and the policies of the user allow.
Where these say nothing, the bucket's policy suffices that names the user, or everybody, in a bucket
of the tenant: across tenants both sides must allow. A denial by either side is one.

    the user's policies    the bucket's policy              then
    deny                                                    no
                           denies                           no
    say nothing            allows the user, own tenant's    yes; but not what is others' in it
    say nothing            anything else                    no
    allow                                                   as for the tenant, by the table above

Source: Amazon S3 User Guide, "How Amazon S3 authorizes a request"; AWS IAM User Guide, "Policy
evaluation logic".
"""

from __future__ import annotations

from couchestor_domain import access, objects
from couchestor_gateway.edge import read_policies, request_facts, request_head
from couchestor_gateway.protocol import operation_needs, permissions
from couchestor_gateway.protocol.operation_needs import Need, Place
from couchestor_gateway.protocol.policy import actions, bucket_policy
from couchestor_gateway.protocol.policy.bucket_policy import Decision


def may(
    head: request_head.RequestHead,
    bucket: objects.BucketRecord,
    need: Need,
    *,
    key: str,
    facts: request_facts.RequestFacts,
    record: objects.ObjectRecord | None = None,
    upload: objects.UploadRecord | None = None,
) -> bool:
    """Whether the caller has what is needed.

    Args:
        key: Of the object that the need's actions are actions on, if they are on one.
        facts: What conditions may ask.
        record: The version that it is needed of, once it is known.
        upload: The upload, once it is known.
    """
    policy = read_policies.of(bucket)
    caller, member = head.caller, head.member
    if policy is None and member is None:
        return by_lists(bucket, caller, need, record=record, upload=upload)
    if policy is not None and is_restricted(bucket, policy) and caller != bucket.owner:
        return False
    is_others = record is not None and permissions.owner_of(bucket, record) != bucket.owner
    for action in need.actions:
        if action in operation_needs.OWNERS_ALWAYS and caller == bucket.owner and member is None:
            continue
        resource = _resource(bucket, action, key)
        decision = Decision.OPEN
        if policy is not None:
            principal = "" if member is None else member.principal
            decision = policy.decide(caller, action, resource, facts, member=principal)
        if decision is Decision.DENIED:
            return False
        if member is not None:
            own = read_policies.decide(member, action, resource, facts)
            if own is Decision.DENIED:
                return False
            if own is not Decision.ALLOWED:
                if decision is Decision.ALLOWED and caller == bucket.owner and not is_others:
                    continue
                return False
        if decision in (Decision.ALLOWED, Decision.DELEGATED) and not is_others:
            continue
        if not by_lists(bucket, caller, need, record=record, upload=upload):
            return False
    return True


def is_denied(
    head: request_head.RequestHead,
    bucket: objects.BucketRecord,
    need: Need,
    *,
    key: str,
    facts: request_facts.RequestFacts,
) -> bool:
    """Whether policies deny what is needed, whatever lists allow."""
    if head.member is not None:
        return not may(head, bucket, need, key=key, facts=facts)
    policy = read_policies.of(bucket)
    return policy is not None and any(
        policy.decide(head.caller, action, _resource(bucket, action, key), facts) is Decision.DENIED
        for action in need.actions
    )


def may_use_service(
    head: request_head.RequestHead, need: Need, facts: request_facts.RequestFacts
) -> bool:
    """Whether a signed caller may what is needed of no bucket, or of one that is not there yet."""
    member = head.member
    return member is None or all(
        read_policies.decide(member, action, head.bucket or "*", facts) is Decision.ALLOWED
        for action in need.actions
    )


def by_lists(
    bucket: objects.BucketRecord,
    caller: access.Caller,
    need: Need,
    *,
    record: objects.ObjectRecord | None = None,
    upload: objects.UploadRecord | None = None,
) -> bool:
    """Whether the caller has it where no policy speaks; what is not known yet is not judged."""
    place, permission = need.place, need.permission
    if place is Place.OBJECT:
        assert permission is not None, need
        return record is None or permissions.on_object(bucket, record, caller, permission)
    if place is Place.OWN_BUCKET or place is Place.OWN_OBJECT:
        return caller == bucket.owner
    if place is Place.UPLOAD and upload is not None:
        return caller is not None and caller in (upload.initiator, bucket.owner)
    return permission is None or permissions.on_bucket(bucket, caller, permission)


def is_restricted(bucket: objects.BucketRecord, policy: bucket_policy.BucketPolicy) -> bool:
    """Whether the bucket is its owner's alone, because its policy lets the public in."""
    block = bucket.access.public_access
    return block is not None and block.restrict_public_buckets and policy.is_public


def _resource(bucket: objects.BucketRecord, action: str, key: str) -> str:
    """What an action is an action on, as policies name it."""
    is_on_object = actions.KINDS[action] is actions.Kind.OBJECT
    return f"{bucket.name}/{key}" if is_on_object else bucket.name
