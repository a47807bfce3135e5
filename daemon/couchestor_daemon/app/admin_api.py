"""What can be asked of a node about tenants and users, quotas and rates: paths, documents, errors.

    GET, POST          /v1/tenants
    GET, DELETE        /v1/tenants/TENANT
    GET, POST          /v1/tenants/TENANT/users
    GET, DELETE        /v1/tenants/TENANT/users/USER
    PUT, DELETE        /v1/tenants/TENANT/users/USER/policies/NAME
    POST               /v1/tenants/TENANT/users/USER/keys
    PATCH, DELETE      /v1/keys/ACCESS_KEY
    GET                /v1/buckets/BUCKET
    PUT, DELETE        /v1/tenants/TENANT/rate, /v1/tenants/TENANT/users/USER/rate
    PUT                /v1/tenants/TENANT/quota, /v1/buckets/BUCKET/quota
    POST               /v1/tenants/TENANT/recount, /v1/buckets/BUCKET/recount
    POST               /v1/master-key/rotation

TENANT is a name or an id. What is changed is durable, and seen by the next request to any worker,
when the answer is sent. A secret is in one answer alone, that to the POST which made it.
"""

from __future__ import annotations

import pathlib
import secrets
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import msgspec

from couchestor_daemon.app import credentials_file, identity_store, master_key_file
from couchestor_daemon.formats import identity_records, usage_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import commit_log
from couchestor_daemon.services.catalogue import buckets, identities, usage
from couchestor_domain import errors
from couchestor_gateway.protocol import s3_error, timestamps
from couchestor_gateway.protocol.policy import bucket_policy

T = TypeVar("T")
Document = Mapping[str, Any]
Submit = Callable[[commit_log.Operation], Awaitable[object]]
Offload = Callable[..., Awaitable[Any]]

RESEALED_MAX: Final = 1_000
"""Secrets in one commit of a rotation."""
_TENANT_ID_DIGITS: Final = 12

_STATUSES: Final[tuple[tuple[type[errors.CouchestorError], int, str], ...]] = (
    (errors.TenantNotFoundError, 404, "NoSuchTenant"),
    (errors.NoSuchIdentityError, 404, "NoSuchIdentity"),
    (errors.NoSuchBucketError, 404, "NoSuchBucket"),
    (errors.IdentityConflictError, 409, "Conflict"),
    (errors.InvalidIdentityError, 400, "Invalid"),
    (s3_error.S3Error, 400, "MalformedPolicy"),
    (errors.CapacityError, 507, "NoRoom"),
    (errors.TransientError, 503, "TryAgain"),
    (errors.UnavailableError, 503, "Unavailable"),
    (errors.ClientError, 400, "Invalid"),
)
"""Most specific first."""


class Clock(Protocol):
    """Wall clock."""

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        ...


class Answer(NamedTuple):
    """Status and document of an answer."""

    status: int
    document: Document


class NewTenant(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a POST of a tenant."""

    name: str
    id: str = ""
    """Empty: one is drawn."""


class NewUser(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a POST of a user."""

    name: str
    is_root: bool = False


class NewQuota(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a PUT of a quota; null, or nothing: no limit."""

    bytes: int | None = None
    objects: int | None = None


class NewRate(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a PUT of a rate."""

    requests_per_second: int
    burst: int


class KeyChange(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a PATCH of an access key."""

    is_active: bool


def refused(status: int, code: str, message: str) -> Answer:
    """An answer that is an error."""
    return Answer(status, {"error": {"code": code, "message": message}})


def failed(error: errors.CouchestorError) -> Answer:
    """What an error is answered with."""
    for kind, status, code in _STATUSES:
        if isinstance(error, kind):
            return refused(status, code, error.message)
    return refused(500, "Failed", error.message)


class AdminApi:
    """Answers requests that root has signed.

    Args:
        submit: Commits an operation through the group commit.
        known: Everybody who may sign requests.
        offload: Where long reads of the index, and what waits for files, are done.
    """

    def __init__(
        self,
        index: index_port.IndexStore,
        submit: Submit,
        known: identity_store.Identities,
        *,
        clock: Clock,
        master_key_path: pathlib.Path,
        offload: Offload,
    ) -> None:
        self._index = index
        self._submit = submit
        self._known = known
        self._clock = clock
        self._path = master_key_path
        self._offload = offload

    async def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Answer one request; never raises CouchestorError.

        Args:
            path: Percent-encoded, without a query.
        """
        parts = [urllib.parse.unquote(part) for part in path.split("/")[1:]]
        known = False
        for wanted, pattern, handle in _ROUTES:
            names = _match(pattern, parts)
            if names is None:
                continue
            known = True
            if wanted == method:
                try:
                    return await handle(self, body, *names)
                except errors.CouchestorError as exc:
                    return failed(exc)
                except msgspec.MsgspecError as exc:
                    return refused(400, "InvalidBody", f"the body is not what is expected: {exc}")
        if known:
            return refused(405, "MethodNotAllowed", f"{path} has no {method}")
        return refused(404, "NoSuchPath", f"there is no {path} here")

    # -- tenants --------------------------------------------------------------------------------

    async def _list_tenants(self, body: bytes) -> Answer:
        def read(reader: index_port.IndexReader) -> list[Document]:
            return [_tenant(key, found) for key, found in identities.list_tenants(reader)]

        return Answer(200, {"tenants": await self._read(read)})

    async def _create_tenant(self, body: bytes) -> Answer:
        asked = msgspec.json.decode(body, type=NewTenant)
        least = 10 ** (_TENANT_ID_DIGITS - 1)
        tenant_id = asked.id or str(least + secrets.randbelow(9 * least))
        if asked.id and self._known.is_named(asked.id):
            raise errors.IdentityConflictError(
                f"the id {asked.id} is root's or that of a user in the users file: take that user"
                " out of the file first"
            )
        now_ns = self._clock.now_ns()
        made = await self._change(
            lambda txn: identities.create_tenant(txn, tenant_id, asked.name, now_ns=now_ns)
        )
        return Answer(201, _tenant(tenant_id, made))

    async def _show_tenant(self, body: bytes, tenant: str) -> Answer:
        def read(reader: index_port.IndexReader) -> Document:
            tenant_id = identities.id_of(reader, tenant)
            found = identities.find_tenant(reader, tenant_id)
            assert found is not None, tenant_id
            users = [name for name, _ in identities.list_users(reader, tenant_id)]
            held = usage.of_tenant(reader, tenant_id)
            return {**_tenant(tenant_id, found), "users": users, **_held(held)}

        return Answer(200, await self._read(read))

    async def _remove_tenant(self, body: bytes, tenant: str) -> Answer:
        await self._change(lambda txn: identities.remove_tenant(txn, identities.id_of(txn, tenant)))
        return Answer(200, {})

    # -- users ----------------------------------------------------------------------------------

    async def _list_users(self, body: bytes, tenant: str) -> Answer:
        def read(reader: index_port.IndexReader) -> list[Document]:
            tenant_id = identities.id_of(reader, tenant)
            return [
                {**_user(reader, tenant_id, name, found), "policies": list(found.policies)}
                for name, found in identities.list_users(reader, tenant_id)
            ]

        return Answer(200, {"users": await self._read(read)})

    async def _create_user(self, body: bytes, tenant: str) -> Answer:
        asked = msgspec.json.decode(body, type=NewUser)
        now_ns = self._clock.now_ns()

        def apply(txn: index_port.IndexWriter) -> Document:
            tenant_id = identities.id_of(txn, tenant)
            made = identities.create_user(
                txn, tenant_id, asked.name, is_root=asked.is_root, now_ns=now_ns
            )
            return _user(txn, tenant_id, asked.name, made)

        return Answer(201, await self._change(apply))

    async def _show_user(self, body: bytes, tenant: str, user: str) -> Answer:
        def read(reader: index_port.IndexReader) -> Document:
            tenant_id = identities.id_of(reader, tenant)
            return _user(reader, tenant_id, user, identities.find_user(reader, tenant_id, user))

        return Answer(200, await self._read(read))

    async def _remove_user(self, body: bytes, tenant: str, user: str) -> Answer:
        await self._change(
            lambda txn: identities.remove_user(txn, identities.id_of(txn, tenant), user)
        )
        return Answer(200, {})

    async def _attach_policy(self, body: bytes, tenant: str, user: str, name: str) -> Answer:
        def parse() -> str:
            bucket_policy.parse(body, bucket=None)
            return body.decode()

        # Of a policy that is made to be slow to read, the event loop is not to notice.
        document = await self._offload(parse)
        await self._change(
            lambda txn: identities.put_policy(
                txn, identities.id_of(txn, tenant), user, name, document
            )
        )
        return Answer(200, {})

    async def _detach_policy(self, body: bytes, tenant: str, user: str, name: str) -> Answer:
        await self._change(
            lambda txn: identities.put_policy(txn, identities.id_of(txn, tenant), user, name, None)
        )
        return Answer(200, {})

    # -- access keys ----------------------------------------------------------------------------

    async def _create_key(self, body: bytes, tenant: str, user: str) -> Answer:
        try:
            return await self._add_key(tenant, user)
        except errors.MasterKeyDroppedError:
            # Rotated between the look at the file and the commit: by now the file has the new one.
            return await self._add_key(tenant, user)

    async def _add_key(self, tenant: str, user: str) -> Answer:
        access_key, secret = credentials_file.draw_pair()
        master = await self._offload(self._known.master_keys)
        now_ns = self._clock.now_ns()

        def apply(txn: index_port.IndexWriter) -> None:
            tenant_id = identities.id_of(txn, tenant)
            identities.add_key(
                txn,
                access_key,
                identity_records.AccessKey(
                    tenant_id=tenant_id,
                    user=user,
                    created_ns=now_ns,
                    is_active=True,
                    master_key_id=master.active_id,
                    sealed_secret=master.seal(
                        secret, identity_store.belongs_to(tenant_id, user, access_key)
                    ),
                ),
            )

        await self._change(apply)
        return Answer(201, {"access_key": access_key, "secret_key": secret})

    async def _change_key(self, body: bytes, access_key: str) -> Answer:
        asked = msgspec.json.decode(body, type=KeyChange)
        await self._change(
            lambda txn: identities.set_key_state(txn, access_key, is_active=asked.is_active)
        )
        return Answer(200, {})

    async def _remove_key(self, body: bytes, access_key: str) -> Answer:
        await self._change(lambda txn: identities.remove_key(txn, access_key))
        return Answer(200, {})

    async def _rotate(self, body: bytes) -> Answer:
        """Seal every secret with a new master key, and forget the earlier ones."""
        master = await self._offload(master_key_file.add, self._path)

        def change(name: str, key: identity_records.AccessKey) -> identity_records.AccessKey:
            if key.master_key_id == master.active_id:
                return key
            place = identity_store.belongs_to(key.tenant_id, key.user, name)
            secret = master.open(key.sealed_secret, key.master_key_id, place)
            return msgspec.structs.replace(
                key,
                master_key_id=master.active_id,
                sealed_secret=master.seal(secret, place),
            )

        # By and by: one commit is to be short, and small in the log. The last one says what is
        # dropped, once nothing is sealed with it any more.
        count, changed = 0, RESEALED_MAX
        while changed == RESEALED_MAX:
            changed = await self._change(
                lambda txn: identities.reseal(
                    txn,
                    change,
                    active_id=master.active_id,
                    dropped=master.other_ids,
                    count_max=RESEALED_MAX,
                )
            )
            count += changed
        await self._offload(master_key_file.drop_others, self._path, master.active_id)
        return Answer(200, {"master_key_id": master.active_id, "secrets_count": count})

    # -- quotas ---------------------------------------------------------------------------------

    async def _show_bucket(self, body: bytes, bucket: str) -> Answer:
        def read(reader: index_port.IndexReader) -> Document:
            found = buckets.find(reader, bucket)
            held = usage.of_bucket(reader, found.bucket_id)
            return {"name": bucket, "owner": found.owner, **_held(held)}

        return Answer(200, await self._read(read))

    async def _limit_bucket(self, body: bytes, bucket: str) -> Answer:
        quota = _quota(body)
        held = await self._change(
            lambda txn: usage.set_bucket_quota(txn, buckets.find(txn, bucket), quota)
        )
        return Answer(200, {"name": bucket, **_held(held)})

    async def _limit_tenant(self, body: bytes, tenant: str) -> Answer:
        quota = _quota(body)
        held = await self._change(
            lambda txn: usage.set_tenant_quota(txn, identities.id_of(txn, tenant), quota)
        )
        return Answer(200, {"name": tenant, **_held(held)})

    async def _recount_bucket(self, body: bytes, bucket: str) -> Answer:
        held = await self._change(lambda txn: usage.recount_bucket(txn, buckets.find(txn, bucket)))
        return Answer(200, {"name": bucket, **_held(held)})

    async def _recount_tenant(self, body: bytes, tenant: str) -> Answer:
        held = await self._change(
            lambda txn: usage.recount_tenant(txn, identities.id_of(txn, tenant))
        )
        return Answer(200, {"name": tenant, **_held(held)})

    # -- rates ----------------------------------------------------------------------------------

    async def _limit_rate(self, body: bytes, tenant: str, user: str | None = None) -> Answer:
        asked = msgspec.json.decode(body, type=NewRate)
        limit = (asked.requests_per_second, asked.burst)
        await self._change(
            lambda txn: identities.set_rate(txn, identities.id_of(txn, tenant), user, limit)
        )
        return Answer(200, {})

    async def _free_rate(self, body: bytes, tenant: str, user: str | None = None) -> Answer:
        await self._change(
            lambda txn: identities.set_rate(txn, identities.id_of(txn, tenant), user, None)
        )
        return Answer(200, {})

    # -- inside ---------------------------------------------------------------------------------

    async def _read(self, read: Callable[[index_port.IndexReader], T]) -> T:
        def run() -> T:
            with self._index.read() as reader:
                return read(reader)

        found: T = await self._offload(run)
        return found

    async def _change(self, apply: Callable[[index_port.IndexWriter], T]) -> T:
        operation = commit_log.Operation(apply=lambda txn, _: apply(txn), uses_reserve=True)
        return await self._submit(operation)  # type: ignore[return-value]


def _match(pattern: Sequence[str], parts: Sequence[str]) -> list[str] | None:
    """The names in a path, if it is of that form."""
    if len(pattern) != len(parts) or not all(parts):
        return None
    if any(wanted not in ("*", part) for wanted, part in zip(pattern, parts, strict=True)):
        return None
    return [part for wanted, part in zip(pattern, parts, strict=True) if wanted == "*"]


def _tenant(tenant_id: str, found: identity_records.Tenant) -> Document:
    return {
        "id": tenant_id,
        "name": found.name,
        "created_at": timestamps.iso8601(found.created_ns),
        "rate": _rate(found.rate),
    }


def _rate(found: identity_records.StoredRate) -> Document | None:
    if found is None:
        return None
    _, per_second, burst = found
    return {"requests_per_second": per_second, "burst": burst}


def _held(held: usage_records.Usage | None) -> Document:
    """Usage and quota; null where nothing has been counted, or is limited."""
    if held is None:
        return {"usage": None, "quota": {"bytes": None, "objects": None}}
    no_limit = usage_records.NO_LIMIT
    limits = (held.size_bytes_max, held.objects_count_max)
    at_most = [None if limit == no_limit else limit for limit in limits]
    return {
        "usage": {"bytes": held.size_bytes, "objects": held.objects_count},
        "quota": {"bytes": at_most[0], "objects": at_most[1]},
    }


def _quota(body: bytes) -> usage.Quota:
    asked = msgspec.json.decode(body, type=NewQuota)
    return usage.Quota(asked.bytes, asked.objects)


def _user(
    reader: index_port.IndexReader, tenant_id: str, name: str, found: identity_records.User
) -> Document:
    keys = []
    for access_key in found.access_keys:
        key = identities.find_key(reader, access_key)
        assert key is not None, access_key
        keys.append(
            {
                "access_key": access_key,
                "is_active": key.is_active,
                "created_at": timestamps.iso8601(key.created_ns),
            }
        )
    return {
        "name": name,
        "arn": f"arn:aws:iam::{identity_store.principal(tenant_id, name)}",
        "is_root": found.is_root,
        "created_at": timestamps.iso8601(found.created_ns),
        "rate": _rate(found.rate),
        "policies": dict(found.policies),
        "keys": keys,
    }


_TENANTS: Final = ("v1", "tenants")
_USERS: Final = (*_TENANTS, "*", "users")
_ROUTES: Final[tuple[tuple[str, tuple[str, ...], Callable[..., Awaitable[Answer]]], ...]] = (
    ("GET", _TENANTS, AdminApi._list_tenants),
    ("POST", _TENANTS, AdminApi._create_tenant),
    ("GET", (*_TENANTS, "*"), AdminApi._show_tenant),
    ("DELETE", (*_TENANTS, "*"), AdminApi._remove_tenant),
    ("GET", _USERS, AdminApi._list_users),
    ("POST", _USERS, AdminApi._create_user),
    ("GET", (*_USERS, "*"), AdminApi._show_user),
    ("DELETE", (*_USERS, "*"), AdminApi._remove_user),
    ("PUT", (*_USERS, "*", "policies", "*"), AdminApi._attach_policy),
    ("DELETE", (*_USERS, "*", "policies", "*"), AdminApi._detach_policy),
    ("POST", (*_USERS, "*", "keys"), AdminApi._create_key),
    ("PATCH", ("v1", "keys", "*"), AdminApi._change_key),
    ("DELETE", ("v1", "keys", "*"), AdminApi._remove_key),
    ("POST", ("v1", "master-key", "rotation"), AdminApi._rotate),
    ("PUT", (*_TENANTS, "*", "rate"), AdminApi._limit_rate),
    ("DELETE", (*_TENANTS, "*", "rate"), AdminApi._free_rate),
    ("PUT", (*_USERS, "*", "rate"), AdminApi._limit_rate),
    ("DELETE", (*_USERS, "*", "rate"), AdminApi._free_rate),
    ("GET", ("v1", "buckets", "*"), AdminApi._show_bucket),
    ("PUT", ("v1", "buckets", "*", "quota"), AdminApi._limit_bucket),
    ("PUT", (*_TENANTS, "*", "quota"), AdminApi._limit_tenant),
    ("POST", ("v1", "buckets", "*", "recount"), AdminApi._recount_bucket),
    ("POST", (*_TENANTS, "*", "recount"), AdminApi._recount_tenant),
)
