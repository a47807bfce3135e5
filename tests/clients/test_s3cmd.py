"""s3cmd, unchanged, with a configuration file of five lines."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import typing
import urllib.error
import urllib.request

import pytest
from tests.functional import daemon_process

from couchestor_bench import server_process

_POLICY: typing.Final = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::s3cmd-bucket/*",
        }
    ],
}


class _S3cmd:
    """The command line; no retry hides a failure."""

    def __init__(self, server: server_process.ServerProcess, folder: pathlib.Path) -> None:
        self._config = folder / "s3cfg"
        self._config.write_text(
            "[default]\n"
            f"access_key = {server.credentials.access_key}\n"
            f"secret_key = {server.credentials.secret_key}\n"
            f"host_base = {server.host}\n"
            f"host_bucket = {server.host}\n"
            "use_https = False\n"
            "max_retries = 0\n"
        )

    def __call__(self, *command: str, given: bytes = b"") -> bytes:
        program = pathlib.Path(sys.executable).parent / "s3cmd"
        done = subprocess.run(
            [str(program), "-c", str(self._config), "--no-progress", *command],
            input=given,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"s3cmd {' '.join(command)}: {done.stderr.decode()[-4000:]}"
        return done.stdout

    def lines(self, *command: str) -> list[str]:
        return self(*command).decode().splitlines()


def _fetched(url: str) -> tuple[int, bytes]:
    """Status and body, as somebody without keys gets them."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read()


@pytest.fixture
def s3cmd(daemon: server_process.ServerProcess, tmp_path: pathlib.Path) -> _S3cmd:
    return _S3cmd(daemon, tmp_path)


def test_a_tree_goes_up_comes_down_and_is_synced_once(
    s3cmd: _S3cmd,
    daemon: server_process.ServerProcess,
    tree: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    place = f"s3://{daemon_process.BUCKET}/s3cmd/"
    files = {path: path.stat().st_size for path in tree.rglob("*") if path.is_file()}
    sent = s3cmd.lines("sync", "--multipart-chunk-size-mb", "5", f"{tree}/", place)
    assert sum(line.startswith("upload:") for line in sent) == len(files)
    large = daemon_process.boto_client(daemon).head_object(
        Bucket=daemon_process.BUCKET, Key="s3cmd/large.bin"
    )
    assert large["ETag"].endswith('-4"')
    # By the MD5 that it keeps with what it sent in parts, and by ETags of all others.
    assert s3cmd("sync", "--check-md5", f"{tree}/", place) == b""
    total, count, _objects, told = s3cmd.lines("du", place)[0].split()
    assert (int(total), int(count), told) == (sum(files.values()), len(files), place)
    (tmp_path / "down").mkdir()
    s3cmd("sync", place, f"{tmp_path / 'down'}/")
    subprocess.run(["diff", "-r", str(tree), str(tmp_path / "down")], check=True)
    s3cmd("del", "--recursive", "--force", place)
    assert s3cmd("ls", "--recursive", place) == b""


def test_objects_are_copied_moved_described_and_shared(
    s3cmd: _S3cmd, daemon: server_process.ServerProcess, tmp_path: pathlib.Path
) -> None:
    bucket = "s3cmd-bucket"
    s3cmd("mb", f"s3://{bucket}")
    assert any(line.endswith(f"s3://{bucket}") for line in s3cmd.lines("ls"))
    # Its length is not known beforehand.
    s3cmd("put", "-", f"s3://{bucket}/piped", given=b"what a pipe brings")
    s3cmd("cp", f"s3://{bucket}/piped", f"s3://{bucket}/a b/copied + é")
    s3cmd("mv", f"s3://{bucket}/a b/copied + é", f"s3://{bucket}/moved")
    s3cmd("modify", "--add-header", "x-amz-meta-colour:blue", f"s3://{bucket}/moved")
    listed = {line.split()[-1] for line in s3cmd.lines("ls", "-r", f"s3://{bucket}")}
    assert listed == {f"s3://{bucket}/piped", f"s3://{bucket}/moved"}
    assert s3cmd("get", f"s3://{bucket}/moved", "-") == b"what a pipe brings"
    s3cmd("settagging", f"s3://{bucket}/moved", "team=storage&cost=none")
    assert {tuple(line.split()) for line in s3cmd.lines("gettagging", f"s3://{bucket}/moved")} >= {
        ("team:", "storage"),
        ("cost:", "none"),
    }

    def anybody_reads(key: str) -> bool:
        status, body = _fetched(f"{daemon.endpoint}/{bucket}/{key}")
        assert (status, body) == (200, b"what a pipe brings") or status == 403
        return status == 200

    assert not anybody_reads("moved")
    s3cmd("setacl", "--acl-public", f"s3://{bucket}/moved")
    told = s3cmd("info", f"s3://{bucket}/moved").decode()
    assert "x-amz-meta-colour: blue" in told
    assert "*anon*: READ" in told
    assert anybody_reads("moved")
    assert not anybody_reads("piped")
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps(_POLICY))
    s3cmd("setpolicy", str(policy), f"s3://{bucket}")
    assert json.dumps(_POLICY) in s3cmd("info", f"s3://{bucket}").decode()
    assert anybody_reads("piped")
    s3cmd("delpolicy", f"s3://{bucket}")
    assert not anybody_reads("piped")
    s3cmd("rb", "--recursive", "--force", f"s3://{bucket}")
    assert not any(line.endswith(f"s3://{bucket}") for line in s3cmd.lines("ls"))


def test_an_upload_that_was_given_up_is_listed_and_aborted(
    s3cmd: _S3cmd, daemon: server_process.ServerProcess
) -> None:
    client, where = daemon_process.boto_client(daemon), f"s3://{daemon_process.BUCKET}"
    upload = client.create_multipart_upload(Bucket=daemon_process.BUCKET, Key="given up")
    client.upload_part(
        Bucket=daemon_process.BUCKET, Key="given up", UploadId=upload["UploadId"],
        PartNumber=1, Body=b"a part",
    )  # fmt: skip
    assert any(
        line.split("\t")[1:] == [f"{where}/given up", upload["UploadId"]]
        for line in s3cmd.lines("multipart", where)
    )
    parts = s3cmd.lines("listmp", f"{where}/given up", upload["UploadId"])
    # Of the MD5 of its six bytes.
    assert [line.split("\t")[1:] for line in parts[1:]] == [
        ["1", '"9db120e8880f33acf4ddeb40892c390c"', "6"]
    ]
    s3cmd("abortmp", f"{where}/given up", upload["UploadId"])
    assert not any(upload["UploadId"] in line for line in s3cmd.lines("multipart", where))


def test_urls_that_it_signs_are_refused_by_the_reason(s3cmd: _S3cmd) -> None:
    """It knows no other way than version 2, whatever it is told."""
    where = f"s3://{daemon_process.BUCKET}/shared"
    s3cmd("put", "-", where, given=b"x")
    url = s3cmd("signurl", where, "+60").decode().strip()
    status, body = _fetched(url)
    assert status == 400
    assert b"AWS4-HMAC-SHA256" in body
