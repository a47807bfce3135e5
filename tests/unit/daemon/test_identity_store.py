"""Who is found by an access key, at what cost, and what nobody gets to see."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pathlib
import stat
import threading
from collections.abc import Callable
from typing import Any

import pytest

from couchestor_daemon.adapters import memory_index, secret_sealing
from couchestor_daemon.app import (
    credentials_file,
    identity_store,
    master_key_file,
    sealed_secrets,
    settings,
    users_file,
)
from couchestor_daemon.formats import identity_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import identities
from couchestor_domain import errors
from couchestor_gateway.ports import credentials

ROOT = credentials_file.RootCredentials(access_key="ROOTKEY", secret_key="root-secret")
TENANT = "111122223333"
SECRET = "the-secret-of-bob"


class _CountingIndex(memory_index.MemoryIndex):
    """Counts what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.reads_count = 0

    def read(self) -> Any:
        self.reads_count += 1
        return super().read()


class Stage:
    """An index with a tenant, and the store of identities over it."""

    def __init__(self, folder: pathlib.Path, users: str | None = None) -> None:
        self.path = folder / "master-key.json"
        self.master = master_key_file.load_or_create(self.path)
        self.index = _CountingIndex()
        self.users_path: pathlib.Path | None = None
        if users is not None:
            self.users_path = folder / "users.toml"
            self.users_path.touch(mode=0o600)
            self.users_path.write_text(users)
        self.named = users_file.Users(ROOT, self.users_path)
        self.store = identity_store.Identities(self.named, self.index, self.path)

    def change(self, act: Callable[[index_port.IndexWriter], object]) -> None:
        """Commit a change."""
        with self.index.write() as txn:
            act(txn)
            txn.commit()

    def populate(self) -> None:
        """A tenant, its root ada and bob, with a key each."""
        self.change(lambda txn: identities.create_tenant(txn, TENANT, "acme", now_ns=1))
        for user in ("ada", "bob"):
            self.change(
                lambda txn, user=user: identities.create_user(  # type: ignore[misc]
                    txn, TENANT, user, is_root=user == "ada", now_ns=1
                )
            )
            self.add_key(user, f"{user.upper()}KEY")

    def add_key(self, user: str, name: str) -> None:
        """An access key."""
        place = identity_store.belongs_to(TENANT, user, name)
        key = identity_records.AccessKey(
            tenant_id=TENANT,
            user=user,
            created_ns=1,
            is_active=True,
            master_key_id=self.master.active_id,
            sealed_secret=self.master.seal(SECRET, place),
        )
        self.change(lambda txn: identities.add_key(txn, name, key))


@pytest.fixture
def stage(tmp_path: pathlib.Path) -> Stage:
    made = Stage(tmp_path)
    made.populate()
    return made


def _found(stage: Stage, access_key: str) -> credentials.Credential:
    found = stage.store.find(access_key)
    assert found is not None
    return found


def test_users_of_tenants_sign_for_the_tenant(stage: Stage) -> None:
    ada, bob = _found(stage, "ADAKEY"), _found(stage, "BOBKEY")
    for each in (ada, bob):
        assert (each.owner, each.display_name, each.secret_key) == (TENANT, "acme", SECRET)
    assert ada.member is None
    assert bob.member == credentials.Member(name="bob", principal=f"{TENANT}:user/bob")
    assert stage.store.user(TENANT) == credentials.User(user_id=TENANT, display_name="acme")
    for name in ("NOKEY", "", "k\udce9y", "x" * 1000):
        assert stage.store.find(name) is None
        assert stage.store.user(name) is None


def test_who_can_be_named_by_policies(stage: Stage) -> None:
    for name in ("root", TENANT, f"{TENANT}:user/bob"):
        assert stage.store.is_principal(name)
    for name in ("nobody", f"{TENANT}:user/eve", "other:user/bob", f"{TENANT}:user/b\udce9b"):
        assert not stage.store.is_principal(name)


def test_root_costs_no_read_and_what_is_known_one(stage: Stage) -> None:
    _found(stage, "BOBKEY")
    before = stage.index.reads_count
    _found(stage, "ROOTKEY")
    assert stage.index.reads_count == before
    first = _found(stage, "BOBKEY")
    assert stage.index.reads_count == before + 1
    # Neither decoded nor opened again.
    assert _found(stage, "BOBKEY") is first


def test_without_tenants_an_unknown_key_costs_one_small_read(tmp_path: pathlib.Path) -> None:
    stage = Stage(tmp_path)
    assert stage.store.find("NOKEY") is None
    assert stage.index.reads_count == 1


def test_a_change_holds_at_the_next_request(stage: Stage) -> None:
    assert _found(stage, "BOBKEY").member is not None
    stage.change(lambda txn: identities.put_policy(txn, TENANT, "bob", "p", "{}"))
    member = _found(stage, "BOBKEY").member
    assert member is not None
    assert member.policies == ("{}",)
    stage.change(lambda txn: identities.set_key_state(txn, "BOBKEY", is_active=False))
    assert stage.store.find("BOBKEY") is None
    stage.change(lambda txn: identities.set_key_state(txn, "BOBKEY", is_active=True))
    _found(stage, "BOBKEY")
    stage.change(lambda txn: identities.remove_key(txn, "BOBKEY"))
    assert stage.store.find("BOBKEY") is None


def test_a_secret_opens_in_its_place_alone(stage: Stage) -> None:
    with stage.index.read() as reader:
        key = identities.find_key(reader, "BOBKEY")
    assert key is not None
    stage.change(lambda txn: identities.add_key(txn, "COPY", key))
    with pytest.raises(errors.MasterKeyError, match="does not open"):
        stage.store.find("COPY")


def test_a_lost_master_key_is_named_with_what_to_do(stage: Stage, tmp_path: pathlib.Path) -> None:
    told = settings.Settings(data_dir=tmp_path)
    with stage.index.read() as reader:
        assert sealed_secrets.complaint(told, reader) is None
    kept = stage.path.read_text()
    complaint: str | None = None
    for content in (None, "{", None):
        stage.path.unlink()
        if content is None:
            master_key_file.load_or_create(stage.path)
        else:
            stage.path.touch(mode=0o600)
            stage.path.write_text(content)
        fresh = identity_store.Identities(stage.named, stage.index, stage.path)
        with pytest.raises(errors.MasterKeyError):
            fresh.find("BOBKEY")
        assert fresh.find("ROOTKEY") is not None
        with stage.index.read() as reader:
            complaint = sealed_secrets.complaint(told, reader)
        assert complaint is not None
        assert "2 access keys" in complaint
        assert str(stage.path) in complaint
    assert complaint is not None
    assert "ADAKEY, BOBKEY" in complaint
    assert stage.master.active_id in complaint
    assert "couchestor key remove" in complaint
    stage.path.write_text(kept)
    # Without a restart.
    assert fresh.find("BOBKEY") is not None


USERS = """
[[users]]
id = "{id}"
keys = [{{ access_key = "{key}", secret_key = "file-secret" }}]
"""


@pytest.mark.parametrize(
    ("user_id", "key", "said"),
    [
        (TENANT, "FILEKEY", f"the id {TENANT} of the users file is a tenant's"),
        ("carl", "BOBKEY", "the access key BOBKEY of root or the users file is that of user bob"),
    ],
)
def test_who_is_in_the_file_and_in_the_store_is_refused_by_name(
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
    user_id: str,
    key: str,
    said: str,
) -> None:
    stage = Stage(tmp_path, USERS.format(id="carl", key="FILEKEY"))
    stage.populate()
    stage.named.guard(stage.store.refuse_conflicts)
    assert _found(stage, "FILEKEY").owner == "carl"
    assert stage.users_path is not None
    stage.users_path.write_text(USERS.format(id=user_id, key=key))
    with caplog.at_level(logging.ERROR):
        assert not stage.named.reload()
    assert said in caplog.records[-1].reason  # type: ignore[attr-defined]
    # The users before stay, and those of the store are who they were.
    assert _found(stage, "FILEKEY").owner == "carl"
    assert _found(stage, "BOBKEY").owner == TENANT
    again = Stage(tmp_path, USERS.format(id=user_id, key=key))
    again.populate()
    with pytest.raises(errors.ConfigurationError, match=said):
        again.named.guard(again.store.refuse_conflicts)


def test_nobody_sees_a_secret(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    found = _found(stage, "BOBKEY")
    held = master_key_file._read(stage.path)
    shown = "\n".join(
        (repr(found), str(found), repr(held), repr(stage.master), repr(ROOT), caplog.text)
    )
    assert SECRET not in shown
    assert "root-secret" not in shown
    for key in held.keys.values():
        assert repr(key)[2:-1] not in shown
    assert "secret_key" not in {
        field.name for field in dataclasses.fields(credentials.Credential) if field.repr
    }
    with stage.index.read() as reader:
        stored = b"".join(value for _, value in reader.scan(b"\0", b"\xff"))
    assert SECRET.encode() not in stored


# -- the file of master keys ----------------------------------------------------------------------


def test_the_file_is_made_once_and_private(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "deep" / "master-key.json"
    first = master_key_file.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert master_key_file.load_or_create(path).active_id == first.active_id
    path.chmod(0o640)
    with pytest.raises(errors.ConfigurationError, match="can be read by others"):
        master_key_file.load(path)


def test_a_rotation_opens_everything_at_every_step(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "master-key.json"
    old = master_key_file.load_or_create(path)
    sealed = old.seal("s", "place")
    new = master_key_file.add(path)
    assert new.other_ids == {old.active_id}
    assert new.open(sealed, old.active_id, "place") == "s"
    master_key_file.drop_others(path, old.active_id)  # overtaken: keeps what is there
    assert old.active_id in master_key_file.load(path)
    master_key_file.drop_others(path, new.active_id)
    left = master_key_file.load(path)
    assert (left.active_id, left.other_ids) == (new.active_id, frozenset())
    with pytest.raises(errors.MasterKeyError, match=old.active_id):
        left.open(sealed, old.active_id, "place")
    assert left.open(new.seal("s", "place"), new.active_id, "place") == "s"


@pytest.mark.may_block
def test_rotations_at_once_lose_no_key(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "master-key.json"
    master_key_file.load_or_create(path)
    threads = [threading.Thread(target=master_key_file.add, args=(path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(master_key_file.load(path).other_ids) == 8
    with contextlib.suppress(FileNotFoundError):
        assert not list(tmp_path.glob(".master-key.json.*.tmp"))


def test_sealing_takes_a_new_nonce_each_time() -> None:
    keys = secret_sealing.MasterKeys({"a": bytes(32)}, "a", source="here")
    assert keys.seal("s", "p") != keys.seal("s", "p")
    sealed = bytearray(keys.seal("s", "p"))
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(errors.MasterKeyError):
            keys.open(bytes(changed), "a", "p")
    with pytest.raises(errors.MasterKeyError):
        keys.open(b"", "a", "p")
