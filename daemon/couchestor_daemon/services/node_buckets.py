"""The buckets of a node's object store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from couchestor_daemon.services import node_changes
from couchestor_daemon.services.catalogue import bucket_lifecycle, buckets
from couchestor_domain import access as access_control
from couchestor_domain import lifecycle, locking, objects


class NodeBuckets(node_changes.NodeChanges):
    """Implements BucketStore of the gateway, structurally."""

    async def create_bucket(
        self,
        *,
        name: str,
        owner: str,
        region: str,
        access: access_control.BucketAccess = access_control.PRIVATE,
        object_lock: locking.BucketLock | None = None,
    ) -> objects.BucketRecord:
        now_ns = self._clock.now_ns()
        return await self._change(
            lambda txn, _: buckets.create_bucket(
                txn,
                name=name,
                owner=owner,
                region=region,
                now_ns=now_ns,
                access=access,
                object_lock=object_lock,
            )
        )

    async def delete_bucket(self, *, name: str, bucket_owner: str = "") -> None:
        await self._change(
            lambda txn, _: buckets.delete_bucket(txn, name, owner=bucket_owner), uses_reserve=True
        )

    async def get_bucket(self, name: str) -> objects.BucketRecord:
        with self._index.read() as reader:
            return buckets.get_bucket(reader, name)

    async def set_versioning(
        self, *, bucket: str, versioning: objects.Versioning, bucket_owner: str = ""
    ) -> None:
        await self._change(
            lambda txn, _: buckets.set_versioning(txn, bucket, versioning, owner=bucket_owner),
            uses_reserve=True,
        )

    async def set_object_lock(
        self, *, bucket: str, lock: locking.BucketLock, bucket_owner: str = ""
    ) -> None:
        await self._change(
            lambda txn, _: buckets.set_object_lock(txn, bucket, lock, owner=bucket_owner),
            uses_reserve=True,
        )

    async def change_access(
        self,
        *,
        bucket: str,
        change: Callable[[access_control.BucketAccess], access_control.BucketAccess],
        bucket_owner: str = "",
    ) -> None:
        await self._change(
            lambda txn, _: buckets.change_access(txn, bucket, change, owner=bucket_owner),
            uses_reserve=True,
        )

    async def get_setting(self, *, bucket: str, setting: objects.Setting) -> bytes:
        with self._index.read() as reader:
            return buckets.get_setting(reader, bucket, setting)

    async def put_setting(
        self,
        *,
        bucket: str,
        setting: objects.Setting,
        value: bytes | None,
        bucket_owner: str = "",
    ) -> None:
        await self._change(
            lambda txn, _: buckets.put_setting(txn, bucket, setting, value, owner=bucket_owner),
            uses_reserve=True,
        )

    async def get_lifecycle(self, bucket: str) -> lifecycle.Configuration | None:
        with self._index.read() as reader:
            return bucket_lifecycle.get(reader, bucket)

    async def put_lifecycle(
        self,
        *,
        bucket: str,
        configuration: lifecycle.Configuration | None,
        bucket_owner: str = "",
    ) -> None:
        await self._change(
            lambda txn, _: bucket_lifecycle.put(txn, bucket, configuration, owner=bucket_owner),
            uses_reserve=True,
        )

    async def list_buckets(self) -> Sequence[objects.BucketRecord]:
        with self._index.read() as reader:
            return list(buckets.list_buckets(reader))
