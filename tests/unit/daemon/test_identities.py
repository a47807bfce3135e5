"""Tenants, users and access keys in the index: their rules, and what counts as a change."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from couchestor_daemon.adapters import memory_index
from couchestor_daemon.formats import identity_records, index_keys, index_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import buckets, identities
from couchestor_domain import errors

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
RECORDS: dict[str, msgspec.Struct] = {
    "index_tenant_v1": identity_records.Tenant(name="acme", created_ns=5, rate=(3, 100, 200)),
    "index_user_v1": identity_records.User(
        is_root=False,
        created_ns=6,
        policies={"p": "{}"},
        access_keys=("K1", "K2"),
        rate=(4, 1, 2),
    ),
    "index_access_key_v1": identity_records.AccessKey(
        tenant_id="111122223333",
        user="ada",
        created_ns=7,
        is_active=True,
        master_key_id="0123456789abcdef",
        sealed_secret=bytes(range(32)),
    ),
}
TENANT = "111122223333"


@pytest.mark.parametrize("name", RECORDS)
def test_golden_bytes(name: str) -> None:
    (written,) = (GOLDEN / f"{name}.hex").read_text().split()
    record = RECORDS[name]
    assert index_records.pack(record).hex() == written
    assert index_records.unpack(type(record), bytes.fromhex(written)) == record


def test_keys() -> None:
    assert identity_records.tenant_of_key(identity_records.tenant("t")) == "t"
    assert identity_records.user_of_key(identity_records.user("t", "u")) == ("t", "u")
    assert identity_records.access_key_of_key(identity_records.access_key("k")) == "k"
    assert identity_records.slot_of_key(identity_records.slot(4095)) == 4095
    made = (
        identity_records.GENERATION_KEY,
        identity_records.tenant("x" * 96),
        identity_records.tenant_name("x" * 64),
        identity_records.user("x" * 96, "y" * 64),
        identity_records.access_key("K" * 128),
        identity_records.slot(0xFFFF),
        identity_records.dropped("0" * 16),
    )
    assert all(key[:1] == identity_records.TABLE for key in made)
    assert identity_records.user("t", "u") == b"yut\0u"
    assert identity_records.slot(258) == b"yr\x01\x02"
    assert identity_records.TABLE in index_keys.TABLES
    assert max(map(len, made)) < index_port.KEY_BYTES_MAX
    # One tenant's users are not another's whose id begins alike.
    start, stop = identity_records.users("t")
    assert start <= identity_records.user("t", "u") < stop
    assert not start <= identity_records.user("t1", "u") < stop


@pytest.fixture
def txn() -> Iterator[index_port.IndexWriter]:
    with memory_index.MemoryIndex().write() as writer:
        identities.create_tenant(writer, TENANT, "acme", now_ns=1)
        identities.create_user(writer, TENANT, "ada", is_root=True, now_ns=2)
        identities.create_user(writer, TENANT, "bob", is_root=False, now_ns=3)
        yield writer


def _key(user: str = "bob", *, master: str = "m1") -> identity_records.AccessKey:
    return identity_records.AccessKey(
        tenant_id=TENANT,
        user=user,
        created_ns=4,
        is_active=True,
        master_key_id=master,
        sealed_secret=b"s",
    )


def _contents(txn: index_port.IndexWriter) -> list[tuple[bytes, bytes]]:
    return list(txn.scan(b"\x00", b"\xff"))


def test_tenants_are_found_by_name_and_id(txn: index_port.IndexWriter) -> None:
    assert identities.id_of(txn, "acme") == identities.id_of(txn, TENANT) == TENANT
    assert [name for name, _ in identities.list_users(txn, TENANT)] == ["ada", "bob"]
    for name in ("nobody", "", "a/b", "x" * 600, "\udce9"):
        with pytest.raises(errors.TenantNotFoundError):
            identities.id_of(txn, name)


def _fill(make: Callable[[int], object], count: int) -> None:
    for number in range(count):
        make(number)


REFUSALS: dict[str, tuple[Callable[[Any], object], type[errors.CouchestorError], str]] = {
    "a name twice": (
        lambda txn: identities.create_tenant(txn, "other", "acme", now_ns=1),
        errors.IdentityConflictError,
        "there is a tenant acme already",
    ),
    "an id twice": (
        lambda txn: identities.create_tenant(txn, TENANT, "other", now_ns=1),
        errors.IdentityConflictError,
        "another tenant's",
    ),
    "a bad name": (
        lambda txn: identities.create_tenant(txn, "t", "a/b", now_ns=1),
        errors.InvalidIdentityError,
        "the name of a tenant is",
    ),
    "a bad id": (
        lambda txn: identities.create_tenant(txn, "a:b", "t", now_ns=1),
        errors.InvalidIdentityError,
        "the id of a tenant is",
    ),
    "a user twice": (
        lambda txn: identities.create_user(txn, TENANT, "ada", is_root=False, now_ns=1),
        errors.IdentityConflictError,
        "has a user ada already",
    ),
    "a user of nobody": (
        lambda txn: identities.create_user(txn, "none", "ada", is_root=False, now_ns=1),
        errors.TenantNotFoundError,
        "no tenant with the id none",
    ),
    "a tenant with users": (
        lambda txn: identities.remove_tenant(txn, TENANT),
        errors.IdentityConflictError,
        "still has users (ada, bob)",
    ),
    "a policy of the root": (
        lambda txn: identities.put_policy(txn, TENANT, "ada", "p", "{}"),
        errors.IdentityConflictError,
        "is root of the tenant",
    ),
    "a policy that is not there": (
        lambda txn: identities.put_policy(txn, TENANT, "bob", "p", None),
        errors.NoSuchIdentityError,
        "user bob has no policy p",
    ),
    "a key of nobody": (
        lambda txn: identities.add_key(txn, "K", _key("eve")),
        errors.NoSuchIdentityError,
        "no user eve",
    ),
    "no such key": (
        lambda txn: identities.set_key_state(txn, "K", is_active=False),
        errors.NoSuchIdentityError,
        "no access key K",
    ),
    "a rate of nothing": (
        lambda txn: identities.set_rate(txn, TENANT, None, (0, 1)),
        errors.InvalidIdentityError,
        "1 to 1000000 requests a second",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_refused_changes_nothing(txn: index_port.IndexWriter, case: str) -> None:
    act, kind, said = REFUSALS[case]
    before = _contents(txn)
    with pytest.raises(kind, match=said.replace("(", r"\(").replace(")", r"\)")):
        act(txn)
    assert _contents(txn) == before


def test_everything_is_removed_in_order(txn: index_port.IndexWriter) -> None:
    identities.add_key(txn, "K", _key())
    buckets.create_bucket(txn, name="photos", owner=TENANT, region="r", now_ns=1)
    with pytest.raises(errors.IdentityConflictError, match=r"still has access keys \(K\)"):
        identities.remove_user(txn, TENANT, "bob")
    identities.remove_key(txn, "K")
    assert identities.find_key(txn, "K") is None
    identities.remove_user(txn, TENANT, "bob")
    identities.remove_user(txn, TENANT, "ada")
    with pytest.raises(errors.IdentityConflictError, match=r"still has buckets \(photos\)"):
        identities.remove_tenant(txn, TENANT)
    buckets.delete_bucket(txn, "photos")
    identities.remove_tenant(txn, TENANT)
    left = {key for key, _ in txn.scan(b"y", b"z")}
    assert left == {identity_records.GENERATION_KEY}


def test_bounds(txn: index_port.IndexWriter) -> None:
    _fill(lambda i: identities.add_key(txn, f"K{i}", _key()), identities.ACCESS_KEYS_MAX)
    with pytest.raises(errors.IdentityConflictError, match="the most there may be"):
        identities.add_key(txn, "K", _key())
    _fill(
        lambda i: identities.put_policy(txn, TENANT, "bob", f"p{i}", "{}"),
        identities.POLICIES_MAX,
    )
    with pytest.raises(errors.IdentityConflictError, match="policies at most"):
        identities.put_policy(txn, TENANT, "bob", "p", "{}")
    identities.put_policy(txn, TENANT, "bob", "p0", '{"Id": "another"}')
    assert identities.find_user(txn, TENANT, "bob").policies["p0"] == '{"Id": "another"}'
    with pytest.raises(errors.IdentityConflictError, match="somebody's already"):
        identities.add_key(txn, "K0", _key("ada"))


def test_every_change_is_another_generation(txn: index_port.IndexWriter) -> None:
    seen = {identities.generation(txn)}
    changes: list[Callable[[], object]] = [
        lambda: identities.create_tenant(txn, "t2", "second", now_ns=1),
        lambda: identities.create_user(txn, "t2", "u", is_root=False, now_ns=1),
        lambda: identities.put_policy(txn, "t2", "u", "p", "{}"),
        lambda: identities.put_policy(txn, "t2", "u", "p", None),
        lambda: identities.add_key(txn, "K", _key()),
        lambda: identities.set_key_state(txn, "K", is_active=False),
        lambda: identities.set_rate(txn, "t2", "u", (1, 1)),
        lambda: identities.set_rate(txn, "t2", None, (1, 1)),
        lambda: identities.set_rate(txn, "t2", None, None),
        lambda: identities.reseal(txn, lambda _, key: key, active_id="m1", dropped=(), count_max=9),
        lambda: identities.remove_key(txn, "K"),
        lambda: identities.remove_user(txn, "t2", "u"),
        lambda: identities.remove_tenant(txn, "t2"),
    ]
    for number, change in enumerate(changes, 2):
        change()
        seen.add(identities.generation(txn))
        assert len(seen) == number


def test_a_dropped_master_key_seals_nothing_any_more(txn: index_port.IndexWriter) -> None:
    for name in ("K", "L", "M"):
        identities.add_key(txn, name, _key(master="m1"))

    def change(name: str, key: identity_records.AccessKey) -> identity_records.AccessKey:
        if key.master_key_id == "m2":
            return key
        return msgspec.structs.replace(key, master_key_id="m2", sealed_secret=b"new")

    def reseal() -> int:
        return identities.reseal(txn, change, active_id="m2", dropped=("m1",), count_max=2)

    assert reseal() == 2
    identities.add_key(txn, "N", _key(master="m1"))  # not dropped before nothing needs it
    assert [reseal(), reseal()] == [2, 0]
    assert {key.master_key_id for _, key in identities.list_keys(txn)} == {"m2"}
    found = identities.find_key(txn, "K")
    assert found is not None
    assert (found.master_key_id, found.sealed_secret) == ("m2", b"new")
    with pytest.raises(errors.MasterKeyDroppedError):
        identities.add_key(txn, "K2", _key(master="m1"))
    with pytest.raises(errors.MasterKeyDroppedError):
        identities.reseal(txn, lambda _, key: key, active_id="m1", dropped=("m2",), count_max=9)
    identities.add_key(txn, "K2", _key(master="m2"))


def test_slots_of_rates_are_used_again_when_all_others_have_been(
    txn: index_port.IndexWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identities, "SLOTS_MAX", 4)
    identities.set_rate(txn, TENANT, None, (10, 20))
    identities.set_rate(txn, TENANT, "ada", (1, 2))
    identities.set_rate(txn, TENANT, "bob", (3, 4))
    assert identities.find_user(txn, TENANT, "ada").rate == (1, 1, 2)
    identities.set_rate(txn, TENANT, "ada", (5, 6))
    assert identities.find_user(txn, TENANT, "ada").rate == (1, 5, 6)
    identities.set_rate(txn, TENANT, "ada", None)
    assert identities.find_user(txn, TENANT, "ada").rate is None
    identities.create_user(txn, TENANT, "eve", is_root=False, now_ns=1)
    identities.set_rate(txn, TENANT, "eve", (7, 8))
    assert identities.find_user(txn, TENANT, "eve").rate == (3, 7, 8)
    identities.set_rate(txn, TENANT, "ada", (9, 9))
    assert identities.find_user(txn, TENANT, "ada").rate == (1, 9, 9)
    identities.create_user(txn, TENANT, "fay", is_root=False, now_ns=1)
    with pytest.raises(errors.IdentityConflictError, match="the rate of 4 tenants and users"):
        identities.set_rate(txn, TENANT, "fay", (1, 1))
    identities.set_rate(txn, TENANT, "ada", None)
    identities.remove_user(txn, TENANT, "eve")
    assert [identity_records.slot_of_key(key) for key, _ in txn.scan(*identity_records.SLOTS)] == [
        0,
        2,
    ]
