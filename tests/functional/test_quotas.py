"""Quotas over the real daemon: what is written at once through several workers fits exactly."""

from __future__ import annotations

import concurrent.futures
import pathlib
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.functional import administrator, daemon_process, node_command, several_users
from tests.functional.administrator import Administrator, Keys

from couchestor_bench import server_process

pytestmark = pytest.mark.may_block

WORKERS = 3
WRITERS = 12
EXCEEDED = ("QuotaExceeded", 403)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server_process.ServerProcess]:
    if daemon_process.is_peer():
        pytest.skip("quotas are ours")
    folder = tmp_path_factory.mktemp("quotas")
    with daemon_process.running(folder / "data", options={"workers": str(WORKERS)}) as running:
        yield running


@pytest.fixture
def root(server: server_process.ServerProcess) -> Administrator:
    return Administrator(server)


def _owner(
    server: server_process.ServerProcess, root: Administrator, tenant: str, *names: str
) -> Keys:
    """Root of a new tenant with buckets."""
    root.tenant(tenant)
    keys = root.user(tenant, "owner", is_root=True)
    for name in names:
        administrator.client(server, keys).create_bucket(Bucket=name)
    return keys


def _write_at_once(
    server: server_process.ServerProcess, keys: Keys, paths: list[str], body: bytes
) -> Counter[int]:
    """How often the writes were answered how; each has a connection of its own."""
    with concurrent.futures.ThreadPoolExecutor(WRITERS) as pool:
        return Counter(
            pool.map(
                lambda path: administrator.status(server, keys, path, method="PUT", body=body),
                paths,
            )
        )


@pytest.mark.parametrize("size_bytes", [100, 200_000], ids=["in the log", "in stripes"])
def test_writers_at_a_quota_of_objects_store_exactly_as_many(
    server: server_process.ServerProcess, root: Administrator, size_bytes: int
) -> None:
    name = f"count-{size_bytes}"
    keys = _owner(server, root, name, name)
    root.ask("PUT", "buckets", name, "quota", objects=20)
    paths = [f"/{name}/{number}" for number in range(50)]
    assert _write_at_once(server, keys, paths, bytes(size_bytes)) == {200: 20, 403: 30}
    owner = administrator.client(server, keys)
    stored = owner.list_objects_v2(Bucket=name)["Contents"]
    assert len(stored) == 20
    assert root.ask("GET", "buckets", name)["usage"] == {
        "bytes": 20 * size_bytes,
        "objects": 20,
    }
    # Overwriting takes no object more; what was refused can be written once there is room.
    first = stored[0]["Key"]
    owner.put_object(Bucket=name, Key=first, Body=b"shorter")
    assert several_users.refusal(owner.put_object, Bucket=name, Key="new", Body=b"") == EXCEEDED
    owner.delete_object(Bucket=name, Key=first)
    owner.put_object(Bucket=name, Key="new", Body=b"")


def test_a_tenants_quota_of_bytes_holds_over_its_buckets(
    server: server_process.ServerProcess, root: Administrator
) -> None:
    names = ("bytes-a", "bytes-b")
    keys = _owner(server, root, "bytes", *names)
    root.ask("PUT", "tenants", "bytes", "quota", bytes=10_000)
    paths = [f"/{names[number % 2]}/{number}" for number in range(40)]
    assert _write_at_once(server, keys, paths, bytes(999)) == {200: 10, 403: 30}
    shown = root.ask("GET", "tenants", "bytes")
    assert shown["usage"] == {"bytes": 9_990, "objects": 10}
    assert shown["quota"] == {"bytes": 10_000, "objects": None}
    owner = administrator.client(server, keys)
    owner.put_object(Bucket=names[0], Key="last", Body=bytes(10))
    status, _, body = administrator.response(
        server, keys, f"/{names[1]}/more", method="PUT", body=b"1"
    )
    assert status == 403
    assert b"<Code>QuotaExceeded</Code>" in body
    # Root's own bucket is another account's.
    daemon_process.boto_client(server).put_object(
        Bucket=daemon_process.BUCKET, Key="k", Body=bytes(20_000)
    )


def test_versions_uploads_and_copies(
    server: server_process.ServerProcess, root: Administrator
) -> None:
    owner = administrator.client(server, _owner(server, root, "kinds", "kinds"))
    owner.put_bucket_versioning(Bucket="kinds", VersioningConfiguration={"Status": "Enabled"})
    root.ask("PUT", "buckets", "kinds", "quota", objects=3, bytes=30)
    refusal = several_users.refusal
    where = {"Bucket": "kinds", "Key": "k"}
    for _ in range(2):
        owner.put_object(**where, Body=bytes(10))
    owner.delete_object(**where)  # a delete marker, which counts for nothing
    upload = owner.create_multipart_upload(**where)["UploadId"]
    parts = [
        {
            "PartNumber": number,
            "ETag": owner.upload_part(
                **where, UploadId=upload, PartNumber=number, Body=bytes(size_bytes)
            )["ETag"],
        }
        for number, size_bytes in ((1, 11), (2, 10))
    ]
    assert root.ask("GET", "buckets", "kinds")["usage"] == {"bytes": 20, "objects": 2}
    finish = owner.complete_multipart_upload
    told = {**where, "UploadId": upload}
    assert refusal(finish, **told, MultipartUpload={"Parts": parts[:1]}) == EXCEEDED
    finish(**told, MultipartUpload={"Parts": parts[1:]})
    assert root.ask("GET", "buckets", "kinds")["usage"] == {"bytes": 30, "objects": 3}
    copying = {"Bucket": "kinds", "Key": "copy", "CopySource": "kinds/k"}
    assert refusal(owner.copy_object, **copying) == EXCEEDED
    versions = owner.list_object_versions(Bucket="kinds")["Versions"]
    owner.delete_objects(
        Bucket="kinds",
        Delete={
            "Objects": [
                {"Key": "k", "VersionId": each["VersionId"]}
                for each in versions
                if not each["IsLatest"]
            ]
        },
    )
    assert root.ask("GET", "buckets", "kinds")["usage"] == {"bytes": 10, "objects": 1}
    owner.copy_object(**copying)


def test_the_command(server: server_process.ServerProcess, root: Administrator) -> None:
    owner = administrator.client(server, _owner(server, root, "shown", "shown"))
    owner.put_object(Bucket="shown", Key="k", Body=bytes(5))

    def run(*words: str) -> str:
        done = node_command.run("quota", *words, data_dir=server.data_dir)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    nothing = "holds    5 bytes in 1 object\nquota    none\n"
    assert run("show", "--bucket", "shown") == nothing
    limited = "holds    5 bytes in 1 object\nquota    2048 bytes and 7 objects\n"
    assert run("set", "--tenant", "shown", "--bytes", "2KiB", "--objects", "7") == limited
    assert run("show", "--tenant", "shown") == limited
    assert run("recount", "--tenant", "shown") == limited
    assert run("recount", "--bucket", "shown") == nothing
    assert run("remove", "--tenant", "shown") == nothing
    for words, said in (
        (("set", "--bucket", "shown"), "name --bytes, --objects or both"),
        (("set", "--bucket", "shown", "--bytes", "many"), "--bytes many is not a size"),
        (("set", "--bucket", "shown", "--objects", "-1"), "--objects -1 is no whole number"),
        (("show", "--bucket", "none"), "there is no bucket none"),
        (("show",), "one of the arguments --bucket --tenant is required"),
    ):
        done = node_command.run("quota", *words, data_dir=server.data_dir)
        assert said in node_command.only_complaint(done)


def test_counters_survive_kill_and_a_lost_index(tmp_path: pathlib.Path) -> None:
    if daemon_process.is_peer():
        pytest.skip("quotas are ours")
    data_dir = tmp_path / "data"
    with daemon_process.running(data_dir, options={"workers": str(WORKERS)}) as server:
        root = Administrator(server)
        keys = _owner(server, root, "lasting", "lasting")
        root.ask("PUT", "tenants", "lasting", "quota", objects=25)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            paths = [f"/lasting/{number % 30}" for number in range(300)]
            writing = pool.submit(_write_some, server, keys, paths)
            while root.ask("GET", "tenants", "lasting")["usage"]["objects"] < 10:
                pass
            server.kill()
            writing.result()
        checked = node_command.run("check", data_dir=data_dir)
        assert "counted" not in checked.stdout, checked.stdout
        recovered = node_command.run("recover", data_dir=data_dir)
        assert recovered.returncode == 0, recovered
        checked = node_command.run("check", data_dir=data_dir)
        assert "counted" not in checked.stdout, checked.stdout
        server.start()
        owner = administrator.client(server, keys)
        stored = owner.list_objects_v2(Bucket="lasting")["Contents"]
        usage = root.ask("GET", "tenants", "lasting")["usage"]
        assert usage == {"bytes": sum(each["Size"] for each in stored), "objects": len(stored)}
        assert 10 <= len(stored) <= 25
        assert _write_at_once(server, keys, [f"/lasting/n{i}" for i in range(40)], b"1") == {
            200: 25 - len(stored),
            403: 15 + len(stored),
        }


def _write_some(server: server_process.ServerProcess, keys: Keys, paths: list[str]) -> None:
    for number, path in enumerate(paths):
        try:
            administrator.status(server, keys, path, method="PUT", body=bytes(number))
        except OSError:
            return  # killed
