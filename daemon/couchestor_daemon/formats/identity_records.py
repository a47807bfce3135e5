"""Index records about tenants, their users and their access keys, and how their keys are made.

Table y of the index. Every value is written as those of ``index_records``.

    y  "g"                               generation (u64): one more with each change below
    y  "t", tenant id                    tenant
    y  "n", tenant name                  id of the tenant of that name
    y  "u", tenant id, 0, user name      user of a tenant
    y  "k", access key                   access key, its secret sealed
    y  "r", slot u16                     whose rate a slot of the board of rates is for: the key of
                                         the tenant or the user
    y  "s"                               slot (u64) that was given last
    y  "d", master key id                a master key that seals nothing any more; no value
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from couchestor_daemon.formats import media_records

TABLE: Final = b"y"
GENERATION_KEY: Final = TABLE + b"g"
LAST_SLOT_KEY: Final = TABLE + b"s"
_TENANT: Final = TABLE + b"t"
_TENANT_NAME: Final = TABLE + b"n"
_USER: Final = TABLE + b"u"
_ACCESS_KEY: Final = TABLE + b"k"
_SLOT: Final = TABLE + b"r"
_DROPPED: Final = TABLE + b"d"
_SLOT_NUMBER: Final = struct.Struct(">H")

U64: Final = media_records.U64

StoredRate = tuple[int, int, int] | None
"""Slot of the board, requests a second, burst."""


class Tenant(msgspec.Struct, array_like=True, frozen=True):
    """A tenant; the id in its key owns buckets and objects, and is granted things."""

    name: str
    created_ns: int
    rate: StoredRate = None


class User(msgspec.Struct, array_like=True, frozen=True):
    """A user of a tenant."""

    is_root: bool
    """May do what the tenant may."""
    created_ns: int
    policies: dict[str, str] = {}
    """Name -> document as it was attached."""
    access_keys: tuple[str, ...] = ()
    rate: StoredRate = None


class AccessKey(msgspec.Struct, array_like=True, frozen=True):
    """An access key."""

    tenant_id: str
    user: str
    created_ns: int
    is_active: bool
    master_key_id: str
    """Which key the secret is sealed with."""
    sealed_secret: bytes
    """Nonce, ciphertext and tag: see ``adapters.secret_sealing``."""


def tenant(tenant_id: str) -> bytes:
    """Key of a tenant."""
    return _TENANT + tenant_id.encode()


def tenant_of_key(key: bytes) -> str:
    """Tenant id in a key made by ``tenant``."""
    return key[len(_TENANT) :].decode()


def tenant_name(name: str) -> bytes:
    """Key of a tenant's name."""
    return _TENANT_NAME + name.encode()


def user(tenant_id: str, name: str) -> bytes:
    """Key of a user."""
    return _USER + tenant_id.encode() + b"\0" + name.encode()


def user_of_key(key: bytes) -> tuple[str, str]:
    """Tenant id and user name in a key made by ``user``."""
    tenant_id, _, name = key[len(_USER) :].partition(b"\0")
    return tenant_id.decode(), name.decode()


def access_key(name: str) -> bytes:
    """Key of an access key."""
    return _ACCESS_KEY + name.encode()


def access_key_of_key(key: bytes) -> str:
    """Access key in a key made by ``access_key``."""
    return key[len(_ACCESS_KEY) :].decode()


def dropped(master_key_id: str) -> bytes:
    """Key of a master key that seals nothing any more."""
    return _DROPPED + master_key_id.encode()


def slot(number: int) -> bytes:
    """Key of a slot of the board of rates."""
    return _SLOT + _SLOT_NUMBER.pack(number)


def slot_of_key(key: bytes) -> int:
    """Number in a key made by ``slot``."""
    return int(_SLOT_NUMBER.unpack(key[len(_SLOT) :])[0])


TENANTS: Final = (_TENANT, _TENANT + b"\xff")
ACCESS_KEYS: Final = (_ACCESS_KEY, _ACCESS_KEY + b"\xff")
SLOTS: Final = (_SLOT, _SLOT + b"\xff\xff\xff")


def users(tenant_id: str) -> tuple[bytes, bytes]:
    """Where the users of a tenant stand."""
    start = _USER + tenant_id.encode()
    return start + b"\0", start + b"\1"
