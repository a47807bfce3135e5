"""An in-memory BucketStore, ObjectStore and UploadStore: the ports' rules without any medium."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from couchestor_domain import access as access_control
from couchestor_domain import errors, lifecycle, locking, notices, objects
from couchestor_gateway.ports import object_store

PART_BYTES_MIN = 5 << 20
_READ_BYTES = 1 << 20


@dataclasses.dataclass
class _Upload:
    record: objects.UploadRecord
    parts: dict[int, tuple[objects.PartRecord, bytes]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class _Bucket:
    record: objects.BucketRecord
    settings: dict[objects.Setting, bytes] = dataclasses.field(default_factory=dict)
    objects: dict[str, objects.ObjectRecord] = dataclasses.field(default_factory=dict)
    uploads: dict[str, _Upload] = dataclasses.field(default_factory=dict)
    lifecycle: lifecycle.Configuration | None = None


class MemoryStore:
    """All three stores of the gateway in one object.

    Args:
        piece_bytes: Largest piece ``stream`` yields.
        part_bytes_min: Smallest part that is not the last one.
    """

    def __init__(self, *, piece_bytes: int = 1 << 20, part_bytes_min: int = PART_BYTES_MIN) -> None:
        self.piece_bytes = piece_bytes
        self.part_bytes_min = part_bytes_min
        self.fail_stream_after_bytes: int | None = None
        """When set, ``stream`` raises IntegrityError once it has yielded this much."""
        self.fail_next: Exception | None = None
        """When set, the next ``put_object`` or ``get_object`` raises it."""
        self.streams_closed = 0
        self._buckets: dict[str, _Bucket] = {}
        self._bytes: dict[tuple[str, str, int], bytes] = {}
        self._completed: dict[str, tuple[tuple[tuple[int, str], ...], objects.ObjectRecord]] = {}
        self._ids = itertools.count(1)
        self._newest_ns = 0

    # -- buckets ---------------------------------------------------------------------------------

    async def create_bucket(
        self,
        *,
        name: str,
        owner: str,
        region: str,
        access: access_control.BucketAccess = access_control.PRIVATE,
        object_lock: locking.BucketLock | None = None,
    ) -> objects.BucketRecord:
        existing = self._buckets.get(name)
        if existing is not None:
            raise errors.BucketAlreadyExistsError(
                f"bucket {name} exists",
                owner=existing.record.owner,
                access=existing.record.access,
            )
        record = objects.BucketRecord(
            name=name, owner=owner, created_ns=self._now_ns(), region=region, access=access
        )
        self._buckets[name] = _Bucket(record)
        return record

    async def change_access(
        self,
        *,
        bucket: str,
        change: Callable[[access_control.BucketAccess], access_control.BucketAccess],
        bucket_owner: str = "",
    ) -> None:
        held = self._bucket(bucket, bucket_owner)
        held.record = dataclasses.replace(held.record, access=change(held.record.access))

    async def delete_bucket(self, *, name: str, bucket_owner: str = "") -> None:
        bucket = self._bucket(name, bucket_owner)
        if bucket.objects or bucket.uploads:
            raise errors.BucketNotEmptyError(f"bucket {name} is not empty")
        del self._buckets[name]

    async def get_bucket(self, name: str) -> objects.BucketRecord:
        return self._bucket(name).record

    async def get_setting(self, *, bucket: str, setting: objects.Setting) -> bytes:
        value = self._bucket(bucket).settings.get(setting)
        if value is None:
            raise errors.NoSuchSettingError(
                f"no {setting.value}", bucket=bucket, setting=setting.value
            )
        return value

    async def put_setting(
        self,
        *,
        bucket: str,
        setting: objects.Setting,
        value: bytes | None,
        bucket_owner: str = "",
    ) -> None:
        held = self._bucket(bucket, bucket_owner)
        settings = held.settings
        if value is None:
            settings.pop(setting, None)
        else:
            settings[setting] = value
        recorded = {
            name: found for name, found in settings.items() if name in objects.RECORDED_SETTINGS
        }
        held.record = dataclasses.replace(held.record, settings=recorded)

    async def get_lifecycle(self, bucket: str) -> lifecycle.Configuration | None:
        return self._bucket(bucket).lifecycle

    async def put_lifecycle(
        self,
        *,
        bucket: str,
        configuration: lifecycle.Configuration | None,
        bucket_owner: str = "",
    ) -> None:
        held = self._bucket(bucket, bucket_owner)
        held.lifecycle = configuration
        held.record = dataclasses.replace(held.record, has_lifecycle=configuration is not None)

    async def set_tags(
        self,
        *,
        bucket: str,
        key: str,
        version_id: str | None,
        tags: Mapping[str, str],
        bucket_owner: str = "",
        announcement: notices.Announcement | None = None,
    ) -> objects.ObjectRecord:
        record = await self.get_object(bucket=bucket, key=key, version_id=version_id)
        changed = dataclasses.replace(record, tags=tags)
        self._bucket(bucket).objects[key] = changed
        return changed

    async def set_acl(
        self,
        judged: objects.ObjectRecord,
        acl: access_control.Acl | None,
        *,
        announcement: notices.Announcement | None = None,
    ) -> None:
        held = self._bucket(judged.bucket).objects
        if held.get(judged.key) != judged:
            raise errors.VersionGoneError(f"key {judged.key} was written meanwhile")
        held[judged.key] = dataclasses.replace(judged, acl=acl)

    async def set_object_lock(
        self, *, bucket: str, lock: locking.BucketLock, bucket_owner: str = ""
    ) -> None:
        raise AssertionError(f"this store locks nothing: {bucket} {lock}")

    async def change_lock(
        self,
        *,
        bucket: str,
        key: str,
        version_id: str | None,
        change: Callable[[locking.VersionLock], locking.VersionLock],
        bucket_owner: str = "",
    ) -> objects.ObjectRecord:
        raise AssertionError(f"this store locks nothing: {bucket} {key}")

    async def set_versioning(
        self, *, bucket: str, versioning: objects.Versioning, bucket_owner: str = ""
    ) -> None:
        raise AssertionError(f"this store keeps no versions: {bucket} {versioning}")

    async def list_buckets(self) -> Sequence[objects.BucketRecord]:
        return [self._buckets[name].record for name in sorted(self._buckets)]

    # -- objects ---------------------------------------------------------------------------------

    async def put_object(
        self, request: objects.PutRequest, body: object_store.BodySource
    ) -> objects.ObjectRecord:
        self._maybe_fail()
        self._bucket(request.bucket)
        content = await _drain(body)
        digests = await body.finish()
        bucket = self._bucket(request.bucket, request.bucket_owner)
        _check(bucket.objects.get(request.key), request.conditions)
        record = objects.ObjectRecord(
            bucket=request.bucket,
            key=request.key,
            size_bytes=len(content),
            etag=digests.etag,
            modified_ns=self._now_ns(),
            headers=request.headers,
            metadata=request.metadata,
            tags=request.tags,
            checksums=digests.checksums,
            checksum_type="FULL_OBJECT" if digests.checksums else "",
            owner=request.owner,
            acl=request.acl,
        )
        self._store(bucket, record, content)
        return record

    async def get_object(
        self, *, bucket: str, key: str, version_id: str | None = None
    ) -> objects.ObjectRecord:
        self._maybe_fail()
        record = self._bucket(bucket).objects.get(key)
        if version_id is not None and (record is None or record.version_id != version_id):
            raise errors.NoSuchVersionError(f"no version {version_id} of key {key}")
        if record is None:
            raise errors.NoSuchKeyError(f"no key {key}")
        return record

    async def fetch(
        self, record: objects.ObjectRecord, *, start_bytes: int, length_bytes: int
    ) -> bytes | memoryview:
        if length_bytes > object_store.FETCH_BYTES_MAX:
            raise AssertionError(f"fetch of {length_bytes}")
        content = self._bytes[(record.bucket, record.key, record.modified_ns)]
        return content[start_bytes : start_bytes + length_bytes]

    async def stream(
        self, record: objects.ObjectRecord, *, start_bytes: int, length_bytes: int
    ) -> AsyncIterator[bytes | memoryview]:
        content = self._bytes[(record.bucket, record.key, record.modified_ns)]
        buffer = bytearray(self.piece_bytes)
        end = start_bytes + length_bytes
        sent = 0
        try:
            for at in range(start_bytes, end, self.piece_bytes):
                limit = self.fail_stream_after_bytes
                if limit is not None and sent >= limit:
                    raise errors.InsufficientShardsError("too few shards")
                piece = content[at : min(at + self.piece_bytes, end)]
                buffer[: len(piece)] = piece
                with memoryview(buffer) as view:
                    yield view[: len(piece)]
                sent += len(piece)
                buffer[:] = b"\xaa" * len(buffer)  # a piece kept too long shows up as rot
        finally:
            self.streams_closed += 1

    async def delete_object(
        self,
        *,
        bucket: str,
        key: str,
        conditions: objects.WriteConditions,
        version_id: str | None = None,
        owner: str = "",
        bucket_owner: str = "",
        bypasses_governance: bool = False,
        announcement: notices.Announcement | None = None,
    ) -> objects.Deletion:
        held = self._bucket(bucket, bucket_owner)
        current = held.objects.get(key)
        if current is not None and conditions.if_match not in (None, "*", current.etag):
            raise errors.PreconditionFailedError("If-Match", condition="If-Match")
        if version_id in (None, objects.NULL_VERSION):
            self._drop(held, key)
        return objects.Deletion()

    async def delete_objects(
        self,
        *,
        bucket: str,
        doomed: Sequence[objects.Doomed],
        owner: str = "",
        bucket_owner: str = "",
    ) -> Sequence[objects.Deletion]:
        return [
            await self._delete_or_refuse(bucket, each, bucket_owner=bucket_owner) for each in doomed
        ]

    async def _delete_or_refuse(
        self, bucket: str, doomed: objects.Doomed, *, bucket_owner: str
    ) -> objects.Deletion:
        try:
            return await self.delete_object(
                bucket=bucket,
                key=doomed.key,
                conditions=doomed.conditions,
                version_id=doomed.version_id,
                bucket_owner=bucket_owner,
            )
        except errors.PreconditionFailedError:
            return objects.Deletion(refusal=objects.Refusal.PRECONDITION_FAILED)

    async def list_versions(self, query: objects.VersionQuery) -> objects.VersionPage:
        page = await self.list_objects(
            objects.ListQuery(
                bucket=query.bucket,
                prefix=query.prefix,
                delimiter=query.delimiter,
                after=query.key_marker,
                limit=query.limit,
            )
        )
        return objects.VersionPage(
            versions=page.objects,
            common_prefixes=page.common_prefixes,
            truncated=page.truncated,
            next_key_marker=page.last if page.truncated else "",
        )

    async def list_objects(self, query: objects.ListQuery) -> objects.ListPage:
        bucket = self._bucket(query.bucket)
        entries: dict[str, objects.ObjectRecord | None] = {}
        for key in sorted(bucket.objects, key=str.encode):
            entry = _entry(key, query.prefix, query.delimiter)
            if entry is None or entry.encode() <= query.after.encode():
                continue
            if query.delimiter and query.after.endswith(query.delimiter) and entry == query.after:
                continue
            rolled_up = bool(query.delimiter) and query.delimiter in key[len(query.prefix) :]
            entries.setdefault(entry, None if rolled_up else bucket.objects[key])
        names = list(entries)
        page = names[: query.limit]
        found = [record for name in page if (record := entries[name]) is not None]
        return objects.ListPage(
            objects=found,
            common_prefixes=[name for name in page if entries[name] is None],
            truncated=len(names) > len(page) and query.limit > 0,
            last=page[-1] if page else "",
        )

    # -- uploads ---------------------------------------------------------------------------------

    async def create_upload(
        self, request: objects.PutRequest, *, checksum_algorithm: str, checksum_type: str
    ) -> objects.UploadRecord:
        bucket = self._bucket(request.bucket, request.bucket_owner)
        record = objects.UploadRecord(
            upload_id=f"upload-{next(self._ids):08d}",
            bucket=request.bucket,
            key=request.key,
            initiated_ns=self._now_ns(),
            headers=request.headers,
            metadata=request.metadata,
            owner=request.owner,
            acl=request.acl,
            initiator=request.initiator or request.owner,
            checksum_algorithm=checksum_algorithm,
            checksum_type=checksum_type,
        )
        bucket.uploads[record.upload_id] = _Upload(record)
        return record

    async def get_upload(self, *, bucket: str, key: str, upload_id: str) -> objects.UploadRecord:
        held = self._bucket(bucket)
        upload = held.uploads.get(upload_id)
        if upload is not None and upload.record.key == key:
            return upload.record
        done = self._completed.get(upload_id)
        if done is not None and (done[1].bucket, done[1].key) == (bucket, key):
            return objects.UploadRecord(
                upload_id=upload_id,
                bucket=bucket,
                key=key,
                initiated_ns=done[1].modified_ns,
                initiator=done[1].owner,
            )
        raise errors.NoSuchUploadError(f"no upload {upload_id}")

    async def put_part(
        self, upload: objects.UploadRecord, *, part_number: int, body: object_store.BodySource
    ) -> objects.PartRecord:
        content = await _drain(body)
        digests = await body.finish()
        held = self._upload(upload)
        part = objects.PartRecord(
            number=part_number,
            size_bytes=len(content),
            etag=digests.etag,
            modified_ns=self._now_ns(),
            checksums=digests.checksums,
        )
        held.parts[part_number] = (part, content)
        return part

    async def list_parts(
        self, upload: objects.UploadRecord, *, after_part: int, limit: int
    ) -> objects.PartPage:
        held = self._upload(upload)
        parts = [held.parts[number][0] for number in sorted(held.parts) if number > after_part]
        page = parts[:limit]
        return objects.PartPage(
            upload=held.record,
            parts=page,
            truncated=len(parts) > len(page),
            next_part_marker=page[-1].number if page else 0,
        )

    async def complete_upload(
        self,
        upload: objects.UploadRecord,
        *,
        parts: Sequence[objects.CompletedPart],
        conditions: objects.WriteConditions,
        expected: objects.ExpectedObject,
        announcement: notices.Announcement | None = None,
    ) -> objects.ObjectRecord:
        asked = tuple((part.number, part.etag) for part in parts)
        done = self._completed.get(upload.upload_id)
        if done is not None and done[0] == asked:
            return done[1]
        held = self._upload(upload)
        numbers = [part.number for part in parts]
        if numbers != sorted(numbers):
            raise errors.InvalidPartOrderError("parts are not in ascending order")
        chosen: list[tuple[objects.PartRecord, bytes]] = []
        for part in {part.number: part for part in parts}.values():
            found = held.parts.get(part.number)
            if found is None or found[0].etag != part.etag:
                raise errors.InvalidPartError(f"part {part.number}")
            chosen.append(found)
        if any(part.size_bytes < self.part_bytes_min for part, _ in chosen[:-1]):
            raise errors.PartTooSmallError("a part is too small")
        bucket = self._bucket(upload.bucket)
        _check(bucket.objects.get(upload.key), conditions)
        digest = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part, _ in chosen))
        checksums: dict[str, str] = {}
        if held.record.checksum_algorithm == "sha256":
            joined = b"".join(base64.b64decode(p.checksums["sha256"]) for p, _ in chosen)
            value = base64.b64encode(hashlib.sha256(joined).digest()).decode()
            checksums = {"sha256": f"{value}-{len(chosen)}"}
        record = objects.ObjectRecord(
            bucket=upload.bucket,
            key=upload.key,
            size_bytes=sum(part.size_bytes for part, _ in chosen),
            etag=f"{digest.hexdigest()}-{len(chosen)}",
            modified_ns=self._now_ns(),
            headers=held.record.headers,
            metadata=held.record.metadata,
            checksums=checksums,
            checksum_type=held.record.checksum_type if checksums else "",
            part_count=len(chosen),
            part_sizes_bytes=tuple(part.size_bytes for part, _ in chosen),
            part_checksums=tuple(part.checksums for part, _ in chosen),
            owner=held.record.owner,
            acl=held.record.acl,
        )
        if any(checksums.get(name) != value for name, value in expected.checksums.items()):
            raise errors.DigestMismatchError("another checksum was expected")
        if expected.size_bytes not in (None, record.size_bytes):
            raise errors.DigestMismatchError("another size was expected")
        self._store(bucket, record, b"".join(content for _, content in chosen))
        del bucket.uploads[upload.upload_id]
        self._completed[upload.upload_id] = (asked, record)
        return record

    async def abort_upload(self, *, bucket: str, key: str, upload_id: str) -> None:
        held = self._bucket(bucket)
        upload = held.uploads.get(upload_id)
        if upload is None or upload.record.key != key:
            raise errors.NoSuchUploadError(f"no upload {upload_id}")
        del held.uploads[upload_id]

    async def list_uploads(self, query: objects.UploadQuery) -> objects.UploadPage:
        bucket = self._bucket(query.bucket)
        uploads = sorted(
            (held.record for held in bucket.uploads.values()),
            key=lambda record: (record.key.encode(), record.initiated_ns, record.upload_id),
        )
        past = not query.upload_id_marker
        page: list[objects.UploadRecord] = []
        prefixes: list[str] = []
        last = ("", "")
        truncated = False
        for record in uploads:
            if record.key.encode() < query.key_marker.encode():
                continue
            if record.key == query.key_marker:
                if not past:
                    past = record.upload_id == query.upload_id_marker
                    continue
                if not query.upload_id_marker:
                    continue
            entry = _entry(record.key, query.prefix, query.delimiter)
            if entry is None or entry in prefixes:
                continue
            if entry != record.key and entry == query.key_marker:
                continue
            if len(page) + len(prefixes) >= query.limit:
                truncated = query.limit > 0
                break
            if entry == record.key:
                page.append(record)
                last = (record.key, record.upload_id)
            else:
                prefixes.append(entry)
                last = (entry, "")
        return objects.UploadPage(
            uploads=page,
            common_prefixes=prefixes,
            truncated=truncated,
            next_key_marker=last[0],
            next_upload_id_marker=last[1],
        )

    # -- inside ----------------------------------------------------------------------------------

    def _now_ns(self) -> int:
        self._newest_ns = max(self._newest_ns + 1, time.time_ns())
        return self._newest_ns

    def _maybe_fail(self) -> None:
        if self.fail_next is not None:
            failure, self.fail_next = self.fail_next, None
            raise failure

    def _bucket(self, name: str, owner: str = "") -> _Bucket:
        bucket = self._buckets.get(name)
        if bucket is None or (owner and bucket.record.owner != owner):
            raise errors.NoSuchBucketError(f"no bucket {name}")
        return bucket

    def _upload(self, upload: objects.UploadRecord) -> _Upload:
        held = self._bucket(upload.bucket).uploads.get(upload.upload_id)
        if held is None:
            raise errors.NoSuchUploadError(f"no upload {upload.upload_id}")
        return held

    def _store(self, bucket: _Bucket, record: objects.ObjectRecord, content: bytes) -> None:
        bucket.objects[record.key] = record
        self._bytes[(record.bucket, record.key, record.modified_ns)] = content

    def _drop(self, bucket: _Bucket, key: str) -> None:
        bucket.objects.pop(key, None)


async def _drain(body: object_store.BodySource) -> bytes:
    content = bytearray()
    buffer = bytearray(_READ_BYTES)
    with memoryview(buffer) as view:
        while len(content) < body.size_bytes:
            count = await body.readinto(view[: min(len(view), body.size_bytes - len(content))])
            if count == 0:
                break
            content += view[:count]
    return bytes(content)


def _entry(key: str, prefix: str, delimiter: str) -> str | None:
    """The key, the common prefix that hides it, or None when outside ``prefix``."""
    if not key.startswith(prefix):
        return None
    if delimiter:
        at = key.find(delimiter, len(prefix))
        if at >= 0:
            return key[: at + len(delimiter)]
    return key


def _check(current: objects.ObjectRecord | None, conditions: objects.WriteConditions) -> None:
    if conditions.if_match is not None:
        if current is None:
            raise errors.NoSuchKeyError("If-Match on a missing key")
        if conditions.if_match not in ("*", current.etag):
            raise errors.PreconditionFailedError("If-Match", condition="If-Match")
    if (
        conditions.if_none_match is not None
        and current is not None
        and conditions.if_none_match in ("*", current.etag)
    ):
        raise errors.PreconditionFailedError("If-None-Match", condition="If-None-Match")
