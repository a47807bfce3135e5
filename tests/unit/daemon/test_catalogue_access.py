"""ACLs in the catalogue: each version has its own, and nothing judged long ago is written to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from couchestor_daemon.adapters import memory_index
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import buckets, uploads, version_attributes, versions
from couchestor_domain import access, errors, objects
from couchestor_domain.access import Grant, Group, Permission

PUBLIC = (
    Grant(Permission.READ, group=Group.ALL_USERS),
    Grant(Permission.FULL_CONTROL, "bob"),
)


@pytest.fixture
def txn() -> Iterator[index_port.IndexWriter]:
    with memory_index.MemoryIndex().write() as writer:
        buckets.create_bucket(writer, name="b", owner="ada", region="r", now_ns=1)
        yield writer


def _put(
    txn: index_port.IndexWriter, now_ns: int, *, owner: str = "bob", bucket_owner: str = ""
) -> objects.ObjectRecord:
    record = objects.ObjectRecord(
        bucket="b", key="k", size_bytes=0, etag="e", modified_ns=now_ns, owner=owner
    )
    return versions.put_version(
        txn,
        record,
        objects.NO_CONDITIONS,
        (),
        draw=lambda: b"123456789012",
        bucket_owner=bucket_owner,
    )


def test_a_new_bucket_has_the_access_it_was_made_with(txn: index_port.IndexWriter) -> None:
    rules = access.BucketAccess(
        acl=PUBLIC,
        ownership=access.Ownership.OBJECT_WRITER,
        public_access=access.PublicAccessBlock(ignore_public_acls=True),
        policy='{"Statement": "any"}',
    )
    buckets.create_bucket(txn, name="c", owner="bob", region="r", now_ns=1, access=rules)
    assert buckets.get_bucket(txn, "c").access == rules
    assert buckets.get_bucket(txn, "b").access == access.PRIVATE
    with pytest.raises(errors.BucketAlreadyExistsError) as failure:
        buckets.create_bucket(txn, name="c", owner="ada", region="r", now_ns=2)
    assert failure.value.context["access"] == rules


def test_changes_of_access_see_each_other(txn: index_port.IndexWriter) -> None:
    buckets.change_access(txn, "b", lambda rules: dataclasses.replace(rules, acl=PUBLIC))
    block = access.PublicAccessBlock(block_public_acls=True)
    buckets.change_access(txn, "b", lambda rules: dataclasses.replace(rules, public_access=block))
    found = buckets.get_bucket(txn, "b")
    assert found.access == access.BucketAccess(acl=PUBLIC, public_access=block)
    buckets.change_access(txn, "b", lambda rules: dataclasses.replace(rules, policy="{}"))
    found = buckets.get_bucket(txn, "b")
    assert found.access == access.BucketAccess(acl=PUBLIC, public_access=block, policy="{}")
    # The text itself: what the gateway made of it is found again by it.
    assert buckets.get_bucket(txn, "b").access.policy is found.access.policy
    buckets.set_versioning(txn, "b", objects.Versioning.ENABLED)
    assert buckets.get_bucket(txn, "b").access == found.access


def test_each_version_has_its_own_acl(txn: index_port.IndexWriter) -> None:
    buckets.set_versioning(txn, "b", objects.Versioning.ENABLED)
    old, new = _put(txn, 10), _put(txn, 20)
    version_attributes.set_acl(txn, old, PUBLIC)

    def acl_of(version_id: str | None) -> access.Acl | None:
        return versions.get_version(txn, "b", "k", version_id).acl

    assert (acl_of(old.version_id), acl_of(new.version_id), acl_of(None)) == (PUBLIC, None, None)
    version_attributes.set_acl(txn, new, ())
    assert (acl_of(None), versions.get_version(txn, "b", "k").modified_ns) == ((), 20)
    versions.delete_version(
        txn,
        "b",
        "k",
        objects.NO_CONDITIONS,
        version_id=new.version_id,
        now_ns=30,
        draw=lambda: b"123456789012",
    )
    assert acl_of(None) == PUBLIC


def test_an_acl_is_not_set_on_what_was_not_judged(txn: index_port.IndexWriter) -> None:
    judged = _put(txn, 10)
    _put(txn, 20, owner="eve")
    with pytest.raises(errors.VersionGoneError):
        version_attributes.set_acl(txn, judged, PUBLIC)
    assert versions.get_version(txn, "b", "k").acl is None


def test_what_was_allowed_in_a_bucket_is_not_done_in_anothers(
    txn: index_port.IndexWriter,
) -> None:
    kept = _put(txn, 10, bucket_owner="ada")
    refused = {"owner": "eve"}
    upload = objects.UploadRecord(upload_id="u", bucket="b", key="k", initiated_ns=1)
    for attempt in (
        lambda: _put(txn, 20, bucket_owner="eve"),
        lambda: version_attributes.set_tags(txn, "b", "k", None, {"a": "b"}, bucket_owner="eve"),
        lambda: versions.delete_version(
            txn,
            "b",
            "k",
            objects.NO_CONDITIONS,
            bucket_owner="eve",
            now_ns=30,
            draw=lambda: b"123456789012",
        ),
        lambda: buckets.delete_bucket(txn, "b", **refused),
        lambda: buckets.set_versioning(txn, "b", objects.Versioning.ENABLED, **refused),
        lambda: buckets.change_access(txn, "b", lambda rules: rules, **refused),
        lambda: buckets.put_setting(txn, "b", objects.Setting.TAGS, b"x", **refused),
        lambda: uploads.create_upload(txn, upload, bucket_owner="eve"),
    ):
        with pytest.raises(errors.NoSuchBucketError):
            attempt()
    assert versions.get_version(txn, "b", "k") == kept
    assert buckets.get_bucket(txn, "b").versioning is objects.Versioning.NEVER
