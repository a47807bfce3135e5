"""Tenants, users and access keys in the store, over the real daemon with two workers."""

from __future__ import annotations

import contextlib
import http.client
import json
import pathlib
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.functional import administrator, daemon_process, node_command, several_users
from tests.functional.administrator import Administrator, Keys

from couchestor_bench import server_process
from couchestor_daemon.app import admin_server, master_key_file

pytestmark = pytest.mark.may_block

DENIED = ("AccessDenied", 403)
ASKED_OFTEN = 12
"""Requests on connections of their own: each worker answers some of them."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server_process.ServerProcess]:
    if daemon_process.is_peer():
        pytest.skip("tenants are ours")
    folder = tmp_path_factory.mktemp("tenants")
    users = folder / "users.toml"
    several_users.write(users, "filed")
    options = {"workers": "2", "users-file": str(users), "log-level": "debug", "access-log": "true"}
    with daemon_process.running(folder / "data", options=options) as running:
        yield running


@pytest.fixture
def root(server: server_process.ServerProcess) -> Administrator:
    return Administrator(server)


def _allow(*actions: str, resource: str | list[str] = "*") -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource}


def test_a_tenant_is_an_account_of_its_users(
    server: server_process.ServerProcess, root: Administrator
) -> None:
    tenant = root.tenant("account")
    owner = administrator.client(server, root.user("account", "owner", is_root=True))
    second = administrator.client(server, root.user("account", "second", is_root=True))
    plain = administrator.client(server, root.user("account", "plain"))
    owner.create_bucket(Bucket="account-photos")
    second.put_object(Bucket="account-photos", Key="k", Body=b"1")
    assert several_users.read(owner, "account-photos") == b"1"
    found = owner.list_buckets()
    assert [each["Name"] for each in found["Buckets"]] == ["account-photos"]
    assert found["Owner"] == {"ID": tenant, "DisplayName": "account"}
    # A plain user may nothing at first, not even be told what there is.
    refusal = several_users.refusal
    assert refusal(plain.list_buckets) == DENIED
    assert refusal(plain.create_bucket, Bucket="account-other") == DENIED
    assert refusal(plain.get_object, Bucket="account-photos", Key="k") == DENIED
    assert refusal(plain.get_object, Bucket="account-photos", Key="none") == DENIED
    assert refusal(plain.put_object, Bucket="account-photos", Key="k", Body=b"2") == DENIED
    # Nobody else sees the bucket: not another tenant, not a user of the file, not root.
    root.tenant("stranger")
    stranger = administrator.client(server, root.user("stranger", "s", is_root=True))
    for other in (
        stranger,
        several_users.client(server, "filed"),
        daemon_process.boto_client(server),
    ):
        assert refusal(other.list_objects_v2, Bucket="account-photos") == DENIED


def test_policies_of_users_and_buckets_together(
    server: server_process.ServerProcess, root: Administrator
) -> None:
    tenant = root.tenant("both")
    root.tenant("away")
    owner = administrator.client(server, root.user("both", "owner", is_root=True))
    bob = administrator.client(server, root.user("both", "bob"))
    eve = administrator.client(server, root.user("away", "eve"))
    refusal, read = several_users.refusal, several_users.read
    owner.create_bucket(Bucket="both-b")
    owner.put_object(Bucket="both-b", Key="k", Body=b"1")
    owner.put_object(Bucket="both-b", Key="home/bob/k", Body=b"2")
    root.attach(
        "both",
        "bob",
        "home",
        _allow(
            "s3:GetObject", "s3:PutObject", resource="arn:aws:s3:::both-b/home/${aws:username}/*"
        ),
        {
            **_allow("s3:ListBucket", resource="arn:aws:s3:::both-b"),
            "Condition": {"StringLike": {"s3:prefix": "home/bob/*"}},
        },
    )
    assert read(bob, "both-b", "home/bob/k") == b"2"
    bob.put_object(Bucket="both-b", Key="home/bob/new", Body=b"3")
    assert refusal(bob.get_object, Bucket="both-b", Key="k") == DENIED
    assert refusal(bob.list_objects_v2, Bucket="both-b") == DENIED
    page = bob.list_objects_v2(Bucket="both-b", Prefix="home/bob/")
    assert [each["Key"] for each in page["Contents"]] == ["home/bob/k", "home/bob/new"]
    assert refusal(bob.delete_object, Bucket="both-b", Key="home/bob/k") == DENIED
    doomed = {"Objects": [{"Key": "home/bob/k"}]}
    answer = bob.delete_objects(Bucket="both-b", Delete=doomed)
    assert [each["Code"] for each in answer["Errors"]] == ["AccessDenied"]

    def set_policy(*statements: dict[str, Any]) -> None:
        owner.put_bucket_policy(
            Bucket="both-b",
            Policy=json.dumps({"Version": "2012-10-17", "Statement": statements}),
        )

    def say(effect: str, who: str) -> dict[str, Any]:
        return {
            "Effect": effect,
            "Principal": {"AWS": who},
            "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::both-b/*",
        }

    # Within the tenant the bucket's policy alone suffices, if it names the user.
    set_policy(say("Allow", f"arn:aws:iam::{tenant}:user/bob"))
    assert read(bob, "both-b") == b"1"
    set_policy(say("Allow", f"arn:aws:iam::{tenant}:root"))
    assert refusal(bob.get_object, Bucket="both-b", Key="k") == DENIED
    set_policy(say("Deny", f"arn:aws:iam::{tenant}:user/bob"))
    assert refusal(bob.get_object, Bucket="both-b", Key="home/bob/k") == DENIED
    assert read(owner, "both-b") == b"1"
    # Across tenants both have to allow it.
    away = root.ask("GET", "tenants", "away")["id"]
    set_policy(say("Allow", away))
    assert refusal(eve.get_object, Bucket="both-b", Key="k") == DENIED
    root.attach("away", "eve", "reads", _allow("s3:GetObject"))
    assert read(eve, "both-b") == b"1"
    owner.delete_bucket_policy(Bucket="both-b")
    assert refusal(eve.get_object, Bucket="both-b", Key="k") == DENIED
    owner.put_object_acl(Bucket="both-b", Key="k", GrantRead=f"id={away}")
    assert read(eve, "both-b") == b"1"
    root.attach("away", "eve", "not", {**_allow("s3:*"), "Effect": "Deny"})
    assert refusal(eve.get_object, Bucket="both-b", Key="k") == DENIED
    # A user that is not there cannot be named.
    mistyped = say("Deny", f"arn:aws:iam::{tenant}:user/bop")
    assert refusal(
        owner.put_bucket_policy, Bucket="both-b", Policy=json.dumps({"Statement": [mistyped]})
    ) == ("MalformedPolicy", 400)


def test_multipart_uploads_and_copies_of_a_plain_user(
    server: server_process.ServerProcess, root: Administrator
) -> None:
    root.tenant("parts")
    owner = administrator.client(server, root.user("parts", "owner", is_root=True))
    bob = administrator.client(server, root.user("parts", "bob"))
    owner.create_bucket(Bucket="parts-b")
    refusal = several_users.refusal
    where = {"Bucket": "parts-b", "Key": "k"}
    assert refusal(bob.create_multipart_upload, **where) == DENIED
    root.attach("parts", "bob", "writes", _allow("s3:PutObject"))
    upload = bob.create_multipart_upload(**where)["UploadId"]
    part = bob.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    assert refusal(bob.list_parts, **where, UploadId=upload) == DENIED
    assert refusal(bob.abort_multipart_upload, **where, UploadId=upload) == DENIED
    bob.complete_multipart_upload(
        **where, UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]}
    )
    copying = {"Bucket": "parts-b", "Key": "copy", "CopySource": "parts-b/k"}
    assert refusal(bob.copy_object, **copying) == DENIED
    root.attach("parts", "bob", "reads", _allow("s3:GetObject"))
    bob.copy_object(**copying)
    assert several_users.read(owner, "parts-b", "copy") == b"x"


def test_every_worker_sees_a_change_at_the_next_request(
    server: server_process.ServerProcess, root: Administrator
) -> None:
    root.tenant("swift")
    owner = root.user("swift", "owner", is_root=True)
    administrator.client(server, owner).create_bucket(Bucket="swift-b")
    bob = root.user("swift", "bob")

    def statuses() -> set[int]:
        return {
            administrator.status(server, bob, "/swift-b?list-type=2") for _ in range(ASKED_OFTEN)
        }

    assert statuses() == {403}
    root.attach("swift", "bob", "lists", _allow("s3:ListBucket"))
    assert statuses() == {200}
    root.ask("PATCH", "keys", bob.access_key, is_active=False)
    assert statuses() == {403}
    root.ask("PATCH", "keys", bob.access_key, is_active=True)
    assert statuses() == {200}
    second = root.key("swift", "bob")
    root.ask("DELETE", "keys", bob.access_key)
    assert statuses() == {403}
    bob = second
    assert statuses() == {200}
    root.ask("DELETE", "tenants", "swift", "users", "bob", "policies", "lists")
    assert statuses() == {403}


def test_the_master_key_is_rotated_while_serving(
    server: server_process.ServerProcess, root: Administrator
) -> None:
    root.tenant("rotated")
    keys = root.user("rotated", "owner", is_root=True)
    path = server.data_dir / "master-key.json"
    before = master_key_file.load(path)
    for _ in range(2):
        assert administrator.status(server, keys, "/") == 200
        found = root.ask("POST", "master-key", "rotation")
        assert found["secrets_count"] >= 1
    after = master_key_file.load(path)
    assert (after.active_id, after.other_ids) == (found["master_key_id"], frozenset())
    assert before.active_id not in after
    assert {administrator.status(server, keys, "/") for _ in range(ASKED_OFTEN)} == {200}
    assert administrator.status(server, root.key("rotated", "owner"), "/") == 200


def test_refusals_of_the_admin_port(
    server: server_process.ServerProcess, root: Administrator
) -> None:
    root.tenant("refusals")
    keys = root.user("refusals", "owner", is_root=True)
    path = "/v1/tenants"
    body = b'{"name": "x"}'
    for answer in (
        root.send("GET", path, headers={}),
        root.send("GET", path, headers=root.signed("GET", path, keys=keys)),
        root.send("GET", path, headers=root.signed("GET", "/v1/keys")),
        root.send("POST", path, headers=root.signed("GET", path)),
    ):
        assert answer.status == 403
        assert answer.error[0] == "AccessDenied"
    assert root.send("POST", path, body, sent=b'{"name": "y"}').error[0] == "BadDigest"
    for body, status, code in (
        (b"", 400, "InvalidBody"),
        (b"{", 400, "InvalidBody"),
        (b"[]", 400, "InvalidBody"),
        (b'{"name": 1}', 400, "InvalidBody"),
        (b'{"name": "x", "more": 1}', 400, "InvalidBody"),
        (b'{"name": "a/b"}', 400, "Invalid"),
        (b'{"name": "x", "id": "filed-id"}', 409, "Conflict"),
        (b'{"name": "x", "id": "root"}', 409, "Conflict"),
        (b'{"name": "refusals"}', 409, "Conflict"),
        (b" " * (64 << 10) + b"{}", 413, "TooLong"),
    ):
        answer = root.send("POST", path, body)
        assert (answer.status, answer.error[0]) == (status, code), (body[:40], answer)
    assert root.send("GET", "/v1/nothing").status == 404
    assert root.send("PUT", path).status == 405
    assert root.send("GET", "/v1/tenants/none").error == (
        "NoSuchTenant",
        "there is no tenant none; `couchestor tenant list` shows them",
    )
    assert root.send("GET", "/v1/tenants/%FF%00").status == 404
    policies = "/v1/tenants/refusals/users/plain/policies/p"
    root.user("refusals", "plain")
    for document, said in (
        (b"{", "invalid Json"),
        (
            b'{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"}}',
            "should not specify a principal",
        ),
        (b'{"Statement": {"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}}', "action"),
    ):
        answer = root.send("PUT", policies, document)
        assert (answer.status, answer.error[0]) == (400, "MalformedPolicy")
        assert said in answer.error[1]
    # S3 does not take what is signed for the admin port, nor the other way round.
    assert (
        administrator.status(
            server,
            Keys(server.credentials.access_key, server.credentials.secret_key),
            "/v1/tenants",
        )
        == 404
    )


def test_strangers_take_nothing_from_s3(
    server: server_process.ServerProcess, root: Administrator
) -> None:
    """Anybody on the machine may connect to the admin port, with anything."""
    with contextlib.ExitStack() as stack:
        held = [
            stack.enter_context(socket.create_connection(("127.0.0.1", root.port), timeout=10))
            for _ in range(2 * admin_server.CONNECTIONS_MAX + 40)
        ]
        ready: list[socket.socket] = []
        while len(ready) < 40:  # those beyond the bound are closed at once
            ready, _, _ = select.select(held, [], [], 10)
            assert ready, "no connection was closed"
        assert {each.recv(1) for each in ready} == {b""}
        assert several_users.client(server, "filed").list_buckets()["Buckets"] == []
    deadline = time.monotonic() + 10
    while True:
        try:
            assert root.send("GET", "/v1/tenants").status == 200
            break
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < deadline, "the connections are still counted"
    with socket.create_connection(("127.0.0.1", root.port), timeout=10) as stranger:
        stranger.sendall(b"\x16\x03\x01\r\n\r\n")
        assert b" 400 " in stranger.recv(4096)
    assert "Traceback" not in server.log_path.read_text()


# -- the command line -----------------------------------------------------------------------------


def _run(server: server_process.ServerProcess, *words: str) -> subprocess.CompletedProcess[str]:
    return node_command.run(*words, data_dir=server.data_dir)


def _said(server: server_process.ServerProcess, *words: str) -> str:
    done = _run(server, *words)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_a_person_gets_by_with_the_command(server: server_process.ServerProcess) -> None:
    assert "tenant cli is there" in _said(server, "tenant", "create", "cli")
    assert "may do nothing yet" in _said(server, "user", "create", "cli/bob")
    assert "is attached" in _said(server, "user", "attach-policy", "cli/bob", "read-write")
    made = json.loads(_said(server, "key", "create", "cli/bob", "--json"))
    bob = administrator.client(server, Keys(made["access_key"], made["secret_key"]))
    bob.create_bucket(Bucket="cli-b")
    bob.put_object(Bucket="cli-b", Key="k", Body=b"1")
    _said(server, "user", "detach-policy", "cli/bob", "read-write")
    _said(server, "user", "attach-policy", "cli/bob", "read-only")
    assert several_users.read(bob, "cli-b") == b"1"
    assert several_users.refusal(bob.delete_object, Bucket="cli-b", Key="k") == DENIED
    shown = _said(server, "user", "show", "cli/bob")
    assert f"key      {made['access_key']}  active" in shown
    assert made["secret_key"] not in shown
    assert made["secret_key"] not in _said(server, "key", "list", "cli/bob", "--json")
    assert "cli" in _said(server, "tenant", "list")
    assert "users    bob" in _said(server, "tenant", "show", "cli")
    assert "read-only" in _said(server, "user", "list", "cli")
    assert "is inactive" in _said(server, "key", "disable", made["access_key"])
    assert several_users.refusal(bob.list_buckets) == ("InvalidAccessKeyId", 403)
    assert "is active" in _said(server, "key", "enable", made["access_key"])
    for words, said in (
        (("user", "remove", "cli/bob"), f"still has access keys ({made['access_key']})"),
        (("tenant", "remove", "cli"), "still has users (bob)"),
        (("tenant", "remove", "none"), "there is no tenant none"),
        (("tenant", "create", "cli"), "there is a tenant cli already"),
        (("user", "create", "bob"), "write TENANT/USER"),
        (("user", "attach-policy", "cli/bob", "mine"), "--document"),
        (("user", "attach-policy", "cli/bob", "m", "--document", "/none"), "cannot read /none"),
    ):
        done = _run(server, *words)
        assert done.returncode in (1, 2)
        assert said in node_command.only_complaint(done)
    _said(server, "key", "remove", made["access_key"])
    _said(server, "user", "remove", "cli/bob")
    done = _run(server, "tenant", "remove", "cli")
    assert "still has buckets (cli-b)" in node_command.only_complaint(done)


def test_a_policy_from_a_file(server: server_process.ServerProcess, tmp_path: pathlib.Path) -> None:
    _said(server, "tenant", "create", "filed")
    _said(server, "user", "create", "filed/bob")
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({"Version": "2012-10-17", "Statement": [_allow("s3:GetObject")]}))
    _said(server, "user", "attach-policy", "filed/bob", "mine", "--document", str(path))
    found = json.loads(_said(server, "user", "show", "filed/bob", "--json"))
    assert json.loads(found["policies"]["mine"])["Statement"] == [_allow("s3:GetObject")]
    path.write_text("{}")
    done = _run(server, "user", "attach-policy", "filed/bob", "m", "--document", str(path))
    assert "Missing required field Statement" in node_command.only_complaint(done)


def test_with_the_wrong_root_key_nothing_is_told(server: server_process.ServerProcess) -> None:
    done = node_command.run(
        "tenant",
        "list",
        data_dir=server.data_dir,
        environment={"COUCHESTOR_ROOT_SECRET_KEY": "another-secret"},
    )
    assert done.returncode == 2
    assert "does not take these root credentials" in node_command.only_complaint(done)


def test_without_a_node_the_command_says_what_to_do(tmp_path: pathlib.Path) -> None:
    done = node_command.run("tenant", "list", data_dir=tmp_path, options={"health-port": "0"})
    assert "no node runs under" in node_command.only_complaint(done)


def test_help_teaches(server: server_process.ServerProcess) -> None:
    assert "couchestor tenant create acme" in _said(server, "tenant", "--help")
    assert "--document" in _said(server, "user", "attach-policy", "--help")
    assert "master key" in _said(server, "key", "rotate-master", "--help")


def test_no_secret_is_in_the_log_or_in_help(
    server: server_process.ServerProcess, root: Administrator
) -> None:
    root.tenant("quiet")
    keys = root.user("quiet", "owner", is_root=True)
    assert administrator.status(server, keys, "/") == 200
    wrong = Keys(keys.access_key, "another-secret")
    assert administrator.status(server, wrong, "/") == 403
    shown = server.log_path.read_text()
    for words in (("serve", "--help"), ("key", "create", "--help"), ("status", "--json")):
        shown += _said(server, *words)
    master = json.loads((server.data_dir / "master-key.json").read_text())
    secrets = [keys.secret_key, server.credentials.secret_key, *master["keys"].values()]
    assert keys.access_key in shown  # the log says who asked
    for secret in secrets:
        assert secret not in shown


# -- what outlives what ---------------------------------------------------------------------------


def test_tenants_outlive_the_node_and_its_index(tmp_path: pathlib.Path) -> None:
    if daemon_process.is_peer():
        pytest.skip("tenants are ours")
    data_dir = tmp_path / "data"
    with daemon_process.running(data_dir, options={"workers": "2"}) as server:
        root = Administrator(server)
        tenant = root.tenant("lasting")
        keys = root.user("lasting", "owner", is_root=True)
        administrator.client(server, keys).create_bucket(Bucket="lasting-b")
        server.terminate()
        recovered = node_command.run("recover", data_dir=data_dir)
        assert recovered.returncode == 0, recovered
        assert "access key" not in recovered.stdout
        checked = node_command.run("check", data_dir=data_dir)
        assert checked.stdout == "everything verified\n"
        server.start()
        assert administrator.status(server, keys, "/lasting-b?location") == 200
        assert root.ask("GET", "tenants", "lasting")["id"] == tenant
        server.terminate()
        # Without the master key the rest of the node goes on, and says what it lacks.
        path = data_dir / "master-key.json"
        kept = path.rename(tmp_path / "kept.json")
        recovered = node_command.run("recover", data_dir=data_dir)
        assert f"1 access keys of tenants ({keys.access_key}) do not open" in recovered.stdout
        checked = node_command.run("check", data_dir=data_dir)
        assert checked.returncode == 1
        assert "do not open" in checked.stdout
        server.start()
        assert administrator.status(server, keys, "/") == 503
        daemon_process.boto_client(server).list_buckets()
        assert "do not open" in server.log_path.read_text()
        kept.replace(path)
        assert administrator.status(server, keys, "/") == 200


def test_a_file_that_names_a_tenant_stops_the_start(tmp_path: pathlib.Path) -> None:
    if daemon_process.is_peer():
        pytest.skip("tenants are ours")
    data_dir, users = tmp_path / "data", tmp_path / "users.toml"
    with daemon_process.running(data_dir, options={"workers": "1"}) as server:
        made = Administrator(server).ask("POST", "tenants", name="t", id="filed-id")
        assert made["id"] == "filed-id"
        server.terminate()
    several_users.write(users, "filed")
    done = node_command.refused_start(data_dir, {"users-file": str(users), "workers": "1"})
    assert done.returncode == 1
    assert "the id filed-id of the users file is a tenant's of this node" in done.stderr
