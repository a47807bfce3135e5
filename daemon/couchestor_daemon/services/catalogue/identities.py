"""Tenants, their users and access keys, in the index.

Each change counts the generation up, by which processes that keep what they read see that it is
old. What these functions refuse is refused before the first write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Final, NamedTuple

import msgspec

from couchestor_daemon.formats import identity_records, index_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import buckets, usage
from couchestor_domain import access, errors

TENANTS_MAX: Final = 10_000
USERS_MAX: Final = 1_000
"""Of one tenant."""
ACCESS_KEYS_MAX: Final = 16
"""Of one user."""
POLICIES_MAX: Final = 10
"""Of one user."""
SLOTS_MAX: Final = 4_096
"""Tenants and users whose rate is limited, together."""
NAME_CHARACTERS_MAX: Final = 64
_NAMED_BUCKETS_MAX: Final = 3
"""Buckets named in the refusal to remove their tenant."""

_NAME: Final = re.compile(rf"[A-Za-z0-9_.@+=,-]{{1,{NAME_CHARACTERS_MAX}}}")
_ID: Final = re.compile(rf"[A-Za-z0-9_.$@+-]{{1,{access.USER_ID_CHARACTERS_MAX}}}")


class KeyHolder(NamedTuple):
    """An access key and whose it is."""

    key: identity_records.AccessKey
    tenant: identity_records.Tenant
    user: identity_records.User


def generation(reader: index_port.IndexReader) -> bytes | None:
    """Another value after each change; None while there have never been any."""
    return reader.get(identity_records.GENERATION_KEY)


# -- tenants --------------------------------------------------------------------------------------


def create_tenant(
    txn: index_port.IndexWriter, tenant_id: str, name: str, *, now_ns: int
) -> identity_records.Tenant:
    """Raises InvalidIdentityError, IdentityConflictError."""
    _check_name(name, "tenant")
    if not _ID.fullmatch(tenant_id):
        raise errors.InvalidIdentityError(
            f"the id of a tenant is 1 to {access.USER_ID_CHARACTERS_MAX} letters, digits, '_', '.',"
            " '$', '@', '+' or '-'"
        )
    if txn.get(identity_records.tenant_name(name)) is not None:
        raise errors.IdentityConflictError(f"there is a tenant {name} already")
    if txn.get(identity_records.tenant(tenant_id)) is not None:
        raise errors.IdentityConflictError(f"the id {tenant_id} is another tenant's")
    if _count(txn, identity_records.TENANTS) >= TENANTS_MAX:
        raise errors.IdentityConflictError(f"a node has {TENANTS_MAX} tenants at most")
    made = identity_records.Tenant(name=name, created_ns=now_ns)
    txn.put(identity_records.tenant(tenant_id), index_records.pack(made))
    txn.put(identity_records.tenant_name(name), tenant_id.encode())
    usage.begin_tenant(txn, tenant_id)
    _changed(txn)
    return made


def find_tenant(reader: index_port.IndexReader, tenant_id: str) -> identity_records.Tenant | None:
    """The tenant of an id."""
    value = reader.get(identity_records.tenant(tenant_id))
    return None if value is None else index_records.unpack(identity_records.Tenant, value)


def id_of(reader: index_port.IndexReader, name: str) -> str:
    """The id of the tenant of a name, or of that id. Raises TenantNotFoundError."""
    # What cannot be one is no key of the index.
    if _NAME.fullmatch(name):
        value = reader.get(identity_records.tenant_name(name))
        if value is not None:
            return value.decode()
    if _ID.fullmatch(name) and reader.get(identity_records.tenant(name)) is not None:
        return name
    raise errors.TenantNotFoundError(
        f"there is no tenant {name[:NAME_CHARACTERS_MAX]}; `couchestor tenant list` shows them"
    )


def list_tenants(
    reader: index_port.IndexReader,
) -> Iterator[tuple[str, identity_records.Tenant]]:
    """All tenants by id."""
    for key, value in reader.scan(*identity_records.TENANTS):
        yield (
            identity_records.tenant_of_key(key),
            index_records.unpack(identity_records.Tenant, value),
        )


def remove_tenant(txn: index_port.IndexWriter, tenant_id: str) -> None:
    """Raises TenantNotFoundError, IdentityConflictError while it has users or buckets."""
    found = _tenant(txn, tenant_id)
    left = [identity_records.user_of_key(key)[1] for key, _ in _users(txn, tenant_id)]
    if left:
        raise errors.IdentityConflictError(
            f"tenant {found.name} still has users ({_some(left)}): remove them first"
        )
    owned = [bucket.name for bucket in buckets.list_buckets(txn) if bucket.owner == tenant_id]
    if owned:
        raise errors.IdentityConflictError(
            f"tenant {found.name} still has buckets ({_some(owned)}): delete them first"
        )
    _release(txn, found.rate)
    txn.delete(identity_records.tenant(tenant_id))
    txn.delete(identity_records.tenant_name(found.name))
    usage.end_tenant(txn, tenant_id)
    _changed(txn)


# -- users ----------------------------------------------------------------------------------------


def create_user(
    txn: index_port.IndexWriter, tenant_id: str, name: str, *, is_root: bool, now_ns: int
) -> identity_records.User:
    """Raises TenantNotFoundError, InvalidIdentityError, IdentityConflictError."""
    found = _tenant(txn, tenant_id)
    _check_name(name, "user")
    key = identity_records.user(tenant_id, name)
    if txn.get(key) is not None:
        raise errors.IdentityConflictError(f"tenant {found.name} has a user {name} already")
    if _count(txn, identity_records.users(tenant_id)) >= USERS_MAX:
        raise errors.IdentityConflictError(f"a tenant has {USERS_MAX} users at most")
    made = identity_records.User(is_root=is_root, created_ns=now_ns)
    txn.put(key, index_records.pack(made))
    _changed(txn)
    return made


def find_user(reader: index_port.IndexReader, tenant_id: str, name: str) -> identity_records.User:
    """Raises NoSuchIdentityError."""
    value = reader.get(identity_records.user(tenant_id, name)) if _NAME.fullmatch(name) else None
    if value is None:
        raise errors.NoSuchIdentityError(
            f"the tenant has no user {name[:NAME_CHARACTERS_MAX]}; `couchestor user list` shows"
            " them"
        )
    return index_records.unpack(identity_records.User, value)


def list_users(
    reader: index_port.IndexReader, tenant_id: str
) -> Iterator[tuple[str, identity_records.User]]:
    """The users of a tenant by name."""
    for key, value in _users(reader, tenant_id):
        yield (
            identity_records.user_of_key(key)[1],
            index_records.unpack(identity_records.User, value),
        )


def remove_user(txn: index_port.IndexWriter, tenant_id: str, name: str) -> None:
    """Raises NoSuchIdentityError, IdentityConflictError while the user has access keys."""
    found = find_user(txn, tenant_id, name)
    if found.access_keys:
        raise errors.IdentityConflictError(
            f"user {name} still has access keys ({', '.join(found.access_keys)}): remove them first"
        )
    _release(txn, found.rate)
    txn.delete(identity_records.user(tenant_id, name))
    _changed(txn)


def put_policy(
    txn: index_port.IndexWriter, tenant_id: str, user: str, name: str, document: str | None
) -> None:
    """Attach a policy to a user, replace or, with None, detach it.

    Raises:
        NoSuchIdentityError: also when there is no policy to detach.
        InvalidIdentityError, IdentityConflictError.
    """
    found = find_user(txn, tenant_id, user)
    policies = dict(found.policies)
    if document is None:
        if policies.pop(name, None) is None:
            attached = f"; it has {', '.join(sorted(policies))}" if policies else ""
            raise errors.NoSuchIdentityError(
                f"user {user} has no policy {name[:NAME_CHARACTERS_MAX]}{attached}"
            )
    else:
        _check_name(name, "policy")
        if found.is_root:
            raise errors.IdentityConflictError(
                f"user {user} is root of the tenant, whom no policy allows or denies anything"
            )
        policies[name] = document
        if len(policies) > POLICIES_MAX:
            raise errors.IdentityConflictError(f"a user has {POLICIES_MAX} policies at most")
    _put_user(txn, tenant_id, user, msgspec.structs.replace(found, policies=policies))


# -- access keys ----------------------------------------------------------------------------------


def add_key(txn: index_port.IndexWriter, name: str, key: identity_records.AccessKey) -> None:
    """Raises NoSuchIdentityError, IdentityConflictError, MasterKeyDroppedError."""
    _check_sealing(txn, key.master_key_id)
    found = find_user(txn, key.tenant_id, key.user)
    if txn.get(identity_records.access_key(name)) is not None:
        raise errors.IdentityConflictError(f"the access key {name} is somebody's already")
    if len(found.access_keys) >= ACCESS_KEYS_MAX:
        raise errors.IdentityConflictError(
            f"user {key.user} has {ACCESS_KEYS_MAX} access keys, the most there may be: remove one"
        )
    txn.put(identity_records.access_key(name), index_records.pack(key))
    keys = (*found.access_keys, name)
    _put_user(txn, key.tenant_id, key.user, msgspec.structs.replace(found, access_keys=keys))


def find_key(reader: index_port.IndexReader, name: str) -> identity_records.AccessKey | None:
    """The access key of a name."""
    value = reader.get(identity_records.access_key(name))
    return None if value is None else index_records.unpack(identity_records.AccessKey, value)


def holder(reader: index_port.IndexReader, name: str) -> KeyHolder | None:
    """An access key with its user and tenant."""
    key = find_key(reader, name)
    if key is None:
        return None
    return KeyHolder(
        key, _tenant(reader, key.tenant_id), find_user(reader, key.tenant_id, key.user)
    )


def set_key_state(txn: index_port.IndexWriter, name: str, *, is_active: bool) -> None:
    """Enable or disable an access key. Raises NoSuchIdentityError."""
    changed = msgspec.structs.replace(_key(txn, name), is_active=is_active)
    txn.put(identity_records.access_key(name), index_records.pack(changed))
    _changed(txn)


def remove_key(txn: index_port.IndexWriter, name: str) -> None:
    """Raises NoSuchIdentityError."""
    key = _key(txn, name)
    found = find_user(txn, key.tenant_id, key.user)
    txn.delete(identity_records.access_key(name))
    keys = tuple(each for each in found.access_keys if each != name)
    _put_user(txn, key.tenant_id, key.user, msgspec.structs.replace(found, access_keys=keys))


def list_keys(
    reader: index_port.IndexReader,
) -> Iterator[tuple[str, identity_records.AccessKey]]:
    """Every access key of every user."""
    for key, value in reader.scan(*identity_records.ACCESS_KEYS):
        yield (
            identity_records.access_key_of_key(key),
            index_records.unpack(identity_records.AccessKey, value),
        )


def reseal(
    txn: index_port.IndexWriter,
    change: Callable[[str, identity_records.AccessKey], identity_records.AccessKey],
    *,
    active_id: str,
    dropped: Collection[str],
    count_max: int,
) -> int:
    """Replace access keys by what ``change`` makes of them; returns how many are another.

    Fewer than ``count_max``: none is left that it would change, and ``dropped`` is marked as such.

    Args:
        active_id: The master key that seals from now on.
        dropped: Those that seal nothing any more, and are about to be forgotten.

    Raises:
        MasterKeyDroppedError: another such change has dropped the active one.
    """
    _check_sealing(txn, active_id)
    changed: list[tuple[str, identity_records.AccessKey]] = []
    for name, old in list_keys(txn):
        new = change(name, old)
        if new is not old:
            changed.append((name, new))
            if len(changed) == count_max:
                break
    for name, new in changed:
        txn.put(identity_records.access_key(name), index_records.pack(new))
    for key_id in dropped if len(changed) < count_max else ():
        txn.put(identity_records.dropped(key_id), b"")
    _changed(txn)
    return len(changed)


# -- rates ----------------------------------------------------------------------------------------


def set_rate(
    txn: index_port.IndexWriter,
    tenant_id: str,
    user: str | None,
    limit: tuple[int, int] | None,
) -> None:
    """Limit the rate of a tenant's or a user's requests, or take the limit away.

    Args:
        limit: Requests a second, and how many at once after a pause.

    Raises:
        TenantNotFoundError, NoSuchIdentityError, InvalidIdentityError, IdentityConflictError.
    """
    if user is None:
        key, rate = identity_records.tenant(tenant_id), _tenant(txn, tenant_id).rate
    else:
        key, rate = identity_records.user(tenant_id, user), find_user(txn, tenant_id, user).rate
    changed: identity_records.StoredRate = None
    if limit is not None:
        per_second, burst = limit
        if not (1 <= per_second <= 1_000_000 and 1 <= burst <= 1_000_000):
            raise errors.InvalidIdentityError(
                "a rate is 1 to 1000000 requests a second, and so is its burst"
            )
        slot = rate[0] if rate is not None else _free_slot(txn)
        changed = (slot, per_second, burst)
    if changed is None:
        _release(txn, rate)
    else:
        txn.put(identity_records.slot(changed[0]), key)
    if user is None:
        found = msgspec.structs.replace(_tenant(txn, tenant_id), rate=changed)
        txn.put(key, index_records.pack(found))
    else:
        kept = msgspec.structs.replace(find_user(txn, tenant_id, user), rate=changed)
        txn.put(key, index_records.pack(kept))
    _changed(txn)


def _free_slot(txn: index_port.IndexWriter) -> int:
    """A slot that has been free for long: its bucket is full again."""
    taken = {identity_records.slot_of_key(key) for key, _ in txn.scan(*identity_records.SLOTS)}
    value = txn.get(identity_records.LAST_SLOT_KEY)
    last = SLOTS_MAX - 1 if value is None else int(identity_records.U64.unpack(value)[0])
    for step in range(1, SLOTS_MAX + 1):
        slot = (last + step) % SLOTS_MAX
        if slot not in taken:
            txn.put(identity_records.LAST_SLOT_KEY, identity_records.U64.pack(slot))
            return slot
    raise errors.IdentityConflictError(
        f"the rate of {SLOTS_MAX} tenants and users is limited, the most there may be"
    )


def _release(txn: index_port.IndexWriter, rate: identity_records.StoredRate) -> None:
    if rate is not None:
        txn.delete(identity_records.slot(rate[0]))


def _check_sealing(reader: index_port.IndexReader, master_key_id: str) -> None:
    if reader.get(identity_records.dropped(master_key_id)) is not None:
        raise errors.MasterKeyDroppedError(
            "the master key was rotated meanwhile: repeat the command"
        )


# -- inside ---------------------------------------------------------------------------------------


def _changed(txn: index_port.IndexWriter) -> None:
    value = txn.get(identity_records.GENERATION_KEY)
    number = 0 if value is None else int(identity_records.U64.unpack(value)[0])
    txn.put(identity_records.GENERATION_KEY, identity_records.U64.pack(number + 1))


def _tenant(reader: index_port.IndexReader, tenant_id: str) -> identity_records.Tenant:
    found = find_tenant(reader, tenant_id)
    if found is None:
        raise errors.TenantNotFoundError(f"there is no tenant with the id {tenant_id}")
    return found


def _key(reader: index_port.IndexReader, name: str) -> identity_records.AccessKey:
    found = find_key(reader, name)
    if found is None:
        raise errors.NoSuchIdentityError(
            f"there is no access key {name[:128]}; `couchestor key list` shows those of a user"
        )
    return found


def _users(reader: index_port.IndexReader, tenant_id: str) -> Iterator[tuple[bytes, bytes]]:
    return reader.scan(*identity_records.users(tenant_id))


def _put_user(
    txn: index_port.IndexWriter, tenant_id: str, name: str, user: identity_records.User
) -> None:
    txn.put(identity_records.user(tenant_id, name), index_records.pack(user))
    _changed(txn)


def _check_name(name: str, what: str) -> None:
    if not _NAME.fullmatch(name):
        raise errors.InvalidIdentityError(
            f"the name of a {what} is 1 to {NAME_CHARACTERS_MAX} letters, digits, '_', '.', '@',"
            " '+', '=', ',' or '-'"
        )


def _count(reader: index_port.IndexReader, span: tuple[bytes, bytes]) -> int:
    return sum(1 for _ in reader.scan(*span))


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED_BUCKETS_MAX])
    more = len(names) - _NAMED_BUCKETS_MAX
    return f"{shown} and {more} more" if more > 0 else shown
