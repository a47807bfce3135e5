"""The clients people use, unchanged: AWS CLI, boto3, rclone, s5cmd.

``COUCHESTOR_FULL=1`` copies the whole standard library instead of a few packages of it, and a file
of more than two GiB.
"""

from __future__ import annotations

import filecmp
import hashlib
import io
import os
import pathlib
import random
import shutil
import subprocess
import sys
import typing
import urllib.error
import urllib.request
from collections.abc import Iterator

import boto3.s3.transfer
import pytest
from tests.functional import daemon_process, library_tree

from couchestor_bench import server_process
from couchestor_daemon.app import serve_command

_MIB: typing.Final = 1024 * 1024
_PACKAGES: typing.Final = ("email", "json", "asyncio", "unittest", "lib2to3", "encodings", "http")
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def daemon(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[server_process.ServerProcess]:
    folder = tmp_path_factory.mktemp("clients")
    with daemon_process.running(folder / "node") as server:
        yield server


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A few hundred real files, some of them empty, in nested folders."""
    full = _is_full()
    return library_tree.copy(
        tmp_path_factory.mktemp("tree") / "lib",
        packages=None if full else _PACKAGES,
        large_mib=2200 if full else 20,
    )


def _is_full() -> bool:
    return os.environ.get("COUCHESTOR_FULL") == "1"


def _run(
    server: server_process.ServerProcess, *command: str, status: int = 0, **variables: str
) -> str:
    """What a client prints, if it ends with ``status``."""
    program = shutil.which(command[0]) or str(pathlib.Path(sys.executable).parent / command[0])
    done = subprocess.run(
        [program, *command[1:]],
        env={**daemon_process.client_environment(server), **variables},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == status, (
        f"{' '.join(command)} -> {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    )
    return done.stdout


def _same(left: pathlib.Path, right: pathlib.Path) -> None:
    done = subprocess.run(
        ["diff", "-r", str(left), str(right)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.skipif(daemon_process.is_peer(), reason="our advice")
def test_clients_presign_as_the_banner_says(
    daemon: server_process.ServerProcess, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = daemon_process.boto_client(daemon)
    client.put_object(Bucket=daemon_process.BUCKET, Key="presigned", Body=b"shared")
    place = f"s3://{daemon_process.BUCKET}/presigned"
    config = str(tmp_path / "config")
    monkeypatch.setenv("AWS_CONFIG_FILE", config)

    def urls() -> list[str]:
        by_cli = _run(daemon, "aws", "s3", "presign", place, AWS_CONFIG_FILE=config).strip()
        by_boto = (
            boto3.session.Session(
                aws_access_key_id=daemon.credentials.access_key,
                aws_secret_access_key=daemon.credentials.secret_key,
                region_name="us-east-1",
            )
            .client("s3", endpoint_url=f"http://{daemon.host}")
            .generate_presigned_url(
                "get_object", Params={"Bucket": daemon_process.BUCKET, "Key": "presigned"}
            )
        )
        return [by_cli, by_boto]

    for url in urls():
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url, timeout=30)
        with caught.value as refusal:
            assert refusal.code == 400
            assert b"once s3.signature_version is s3v4" in refusal.read()
    _run(daemon, *serve_command.PRESIGN_CURE.split(), AWS_CONFIG_FILE=config)
    for url in urls():
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert answer.read() == b"shared"


def test_aws_cli_syncs_a_tree_up_and_down(
    daemon: server_process.ServerProcess, tree: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    place = f"s3://{daemon_process.BUCKET}/aws/"
    _run(daemon, "aws", "s3", "sync", "--only-show-errors", str(tree), place)
    _run(daemon, "aws", "s3", "sync", "--only-show-errors", place, str(tmp_path / "down"))
    _same(tree, tmp_path / "down")
    listed = _run(daemon, "aws", "s3", "ls", "--recursive", place).splitlines()
    assert len(listed) == sum(1 for path in tree.rglob("*") if path.is_file())
    # A second sync finds nothing to do: sizes and times are listed as they are.
    assert _run(daemon, "aws", "s3", "sync", str(tree), place) == ""
    _run(daemon, "aws", "s3", "cp", place + "large.bin", str(tmp_path / "one"))
    assert filecmp.cmp(tree / "large.bin", tmp_path / "one", shallow=False)
    _run(daemon, "aws", "s3", "rm", "--recursive", "--only-show-errors", place)
    left = daemon_process.boto_client(daemon).list_objects_v2(
        Bucket=daemon_process.BUCKET, Prefix="aws/"
    )
    assert left["KeyCount"] == 0


def test_rclone_syncs_and_checks_a_tree(
    daemon: server_process.ServerProcess, tree: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    place = f"proof:{daemon_process.BUCKET}/rclone"
    _run(daemon, "rclone", "sync", "--retries", "1", str(tree), place)
    _run(daemon, "rclone", "check", "--download", "--retries", "1", str(tree), place)
    _run(daemon, "rclone", "check", "--retries", "1", str(tree), place)
    _run(daemon, "rclone", "sync", "--retries", "1", place, str(tmp_path / "down"))
    _same(tree, tmp_path / "down")


def test_rclone_check_tells_what_differs_and_nothing_else(
    daemon: server_process.ServerProcess, tree: pathlib.Path
) -> None:
    place = f"proof:{daemon_process.BUCKET}/checked"
    in_parts = ("--retries", "1", "--s3-upload-cutoff", "5Mi", "--s3-chunk-size", "5Mi")
    _run(daemon, "rclone", "sync", *in_parts, str(tree), place)
    files = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}

    def told(status: int, *flags: str) -> set[str]:
        report = _run(
            daemon, "rclone", "check", "--retries", "1", "--combined", "-", *flags,
            str(tree), place, status=status,
        )  # fmt: skip
        return set(report.splitlines())

    # By the hashes that the store tells, also of what was put in parts.
    hashes = _run(daemon, "rclone", "hashsum", "MD5", "--retries", "1", place).splitlines()
    assert {line[34:]: line[:32] for line in hashes} == {
        name: hashlib.md5((tree / name).read_bytes()).hexdigest() for name in files
    }
    assert told(0) == told(0, "--download") == {f"= {name}" for name in files}
    client, bucket = daemon_process.boto_client(daemon), daemon_process.BUCKET
    assert client.head_object(Bucket=bucket, Key="checked/large.bin")["ETag"].endswith('-5"')
    same_size = bytes(byte ^ 1 for byte in (tree / "json/decoder.py").read_bytes())
    client.put_object(Bucket=bucket, Key="checked/json/decoder.py", Body=same_size)
    client.delete_object(Bucket=bucket, Key="checked/json/encoder.py")
    client.put_object(Bucket=bucket, Key="checked/json/new.py", Body=b"")
    differing = {"* json/decoder.py", "+ json/encoder.py", "- json/new.py"}
    untouched = {f"= {name}" for name in files - {"json/decoder.py", "json/encoder.py"}}
    assert told(1) == told(1, "--download") == differing | untouched


def test_s5cmd_copies_a_tree_up_and_down(
    daemon: server_process.ServerProcess, tree: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    place = f"s3://{daemon_process.BUCKET}/s5/"
    _run(daemon, "s5cmd", "--retry-count", "0", "cp", f"{tree}/", place)
    _run(daemon, "s5cmd", "--retry-count", "0", "cp", place + "*", f"{tmp_path / 'down'}/")
    _same(tree, tmp_path / "down")
    _run(daemon, "s5cmd", "--retry-count", "0", "rm", place + "*")


def test_boto3_transfers_a_tree_up_and_down(
    daemon: server_process.ServerProcess, tree: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    client, bucket = daemon_process.boto_client(daemon), daemon_process.BUCKET
    for path in tree.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), bucket, f"boto3/{path.relative_to(tree)}")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="boto3/")
    for page in pages:
        for row in page["Contents"]:
            target = tmp_path / "down" / row["Key"].removeprefix("boto3/")
            target.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, row["Key"], str(target))
    _same(tree, tmp_path / "down")


def test_boto3_uploads_in_parts_and_reads_ranges(daemon: server_process.ServerProcess) -> None:
    client = daemon_process.boto_client(daemon)
    bucket, body = daemon_process.BUCKET, random.Random(1).randbytes(17 * _MIB + 5)
    small = boto3.s3.transfer.TransferConfig(
        multipart_threshold=5 * _MIB, multipart_chunksize=5 * _MIB, max_concurrency=3
    )
    client.upload_fileobj(io.BytesIO(body), bucket, "parts", Config=small)
    head = client.head_object(Bucket=bucket, Key="parts")
    assert head["ContentLength"] == len(body)
    assert head["ETag"].endswith('-4"')
    landed = io.BytesIO()
    client.download_fileobj(bucket, "parts", landed, Config=small)
    assert landed.getvalue() == body
    edge = 5 * _MIB
    for first, last in (
        (0, 0),
        (edge - 1, edge),
        (edge, edge),
        (4095, 4097),
        (len(body) - 1, None),
    ):
        told = f"bytes={first}-{'' if last is None else last}"
        answer = client.get_object(Bucket=bucket, Key="parts", Range=told)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert answer["Body"].read() == body[first : None if last is None else last + 1], told
    tail = client.get_object(Bucket=bucket, Key="parts", Range="bytes=-7")["Body"].read()
    assert tail == body[-7:]


def test_boto3_presigned_urls_work_without_credentials(
    daemon: server_process.ServerProcess,
) -> None:
    # By itself boto3 presigns with version 2 for some regions, which is refused by name.
    client = daemon_process.boto_client(daemon, signature_version="s3v4")
    where = {"Bucket": daemon_process.BUCKET, "Key": "presigned é +"}
    put = client.generate_presigned_url("put_object", Params=where, ExpiresIn=60)
    asked = urllib.request.Request(put, method="PUT", data=b"by url")
    asked.add_unredirected_header("Content-Type", "")
    with urllib.request.urlopen(asked, timeout=30) as answer:
        assert answer.status == 200
    get = client.generate_presigned_url("get_object", Params=where, ExpiresIn=60)
    with urllib.request.urlopen(get, timeout=30) as answer:
        assert answer.read() == b"by url"


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_boto3_checksums_are_kept_and_verified(
    daemon: server_process.ServerProcess, algorithm: str
) -> None:
    client = daemon_process.boto_client(daemon)
    where = {"Bucket": daemon_process.BUCKET, "Key": f"checksum/{algorithm}"}
    body = random.Random(algorithm).randbytes(100_003)
    stored = client.put_object(**where, Body=body, ChecksumAlgorithm=algorithm)
    name = f"Checksum{algorithm}"
    read = client.get_object(**where, ChecksumMode="ENABLED")
    assert read["Body"].read() == body
    assert stored[name] == read[name]
