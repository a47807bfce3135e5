"""A start that cannot be: one clear line and an exit status; and who wins among settings."""

from __future__ import annotations

import os
import pathlib
import typing

import pytest
from tests.functional import daemon_process, node_command

from couchestor_bench import server_process

pytestmark = pytest.mark.skipif(daemon_process.is_peer(), reason="our settings")


class _Case(typing.NamedTuple):
    options: dict[str, str] = {}  # noqa: RUF012 - never changed
    environment: dict[str, str] = {}  # noqa: RUF012
    file: str | None = None
    words: tuple[str, ...] = ()


@pytest.mark.parametrize(
    "case",
    [
        _Case(file="prot = 9000\n", words=(":1: unknown setting prot; did you mean port?",)),
        _Case(file='\nregion = "x y"\n', words=(":2 region: 'x y' is not a region",)),
        _Case(file="port = \n", words=("is not TOML",)),
        _Case(file="[port]\na = 1\n", words=("port cannot be a dict",)),
        _Case({"workers": "-1"}, words=("--workers: '-1' is not between 0 and 1024",)),
        _Case({"prot": "1"}, words=("unknown argument --prot", "did you mean --port?")),
        _Case(environment={"COUCHESTOR_PROT": "1"}, words=("COUCHESTOR_PROT", "COUCHESTOR_PORT?")),
        _Case(environment={"COUCHESTOR_DRAIN_SECONDS": "soon"}, words=("DRAIN_SECONDS: 'soon'",)),
        _Case({"config": "/nonexistent.toml"}, words=("cannot read /nonexistent.toml: No such",)),
        _Case({"config": "/"}, words=("cannot read /: Is a directory",)),
        _Case({"data-shards": "9"}, words=("9+2 coding needs 11 devices, 6 are configured",)),
        _Case({"host": "192.0.2.7"}, words=("cannot serve S3 on 192.0.2.7", "--host and --port")),
        _Case({"zone-bytes": "1MiB"}, words=("a zone must hold at least two full chunks",)),
        _Case(
            environment={"COUCHESTOR_ROOT_SECRET_KEY": "", "COUCHESTOR_ROOT_SECRET": ""},
            words=("COUCHESTOR_ROOT_ACCESS_KEY and COUCHESTOR_ROOT_SECRET belong together",),
        ),
        _Case({"device-capacity-bytes": "8MiB"}, words=("has room for 0 zones", "zone_bytes")),
    ],
    ids=lambda case: case.words[0][:40],
)
def test_one_clear_line(tmp_path: pathlib.Path, case: _Case) -> None:
    options = dict(case.options)
    if case.file is not None:
        (tmp_path / "c.toml").write_text(case.file)
        options["config"] = str(tmp_path / "c.toml")
    done = node_command.refused_start(tmp_path / "node", options, environment=case.environment)
    line = node_command.only_complaint(done)
    assert all(word in line for word in case.words), line
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_an_unusable_data_dir_is_one_line(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    done = node_command.refused_start(tmp_path / "file" / "node", {})
    assert "cannot use" in node_command.only_complaint(done)
    assert "Not a directory" in done.stderr


def test_a_taken_port_and_a_second_daemon_are_refused(tmp_path: pathlib.Path) -> None:
    """From its very first start on: what it has just formatted is locked too."""
    with daemon_process.running(tmp_path / "node", options={"workers": "1"}) as server:
        taken = {"port": str(server.port)}
        line = node_command.only_complaint(node_command.refused_start(tmp_path / "other", taken))
        assert f"cannot serve S3 on 127.0.0.1:{server.port}: Address already in use" in line
        taken = {"admin-port": server.command[server.command.index("--admin-port") + 1]}
        line = node_command.only_complaint(node_command.refused_start(tmp_path / "other", taken))
        assert f"cannot serve tenants on 127.0.0.1:{taken['admin-port']}: Address already" in line
        assert "choose another with --admin-host and --admin-port" in line
        line = node_command.only_complaint(node_command.refused_start(server.data_dir, {}))
        assert f"another couchestor daemon uses {server.data_dir}" in line
        devices = [server.data_dir / "devices" / f"d{number}" for number in range(6)]
        named = {"devices": ",".join(map(str, devices))}
        line = node_command.only_complaint(node_command.refused_start(tmp_path / "other", named))
        assert f"{devices[0]} is held by another daemon (process {server.pid})" in line
        for words in (["recover"],):
            done = node_command.run(*words, data_dir=server.data_dir)
            assert f"{server.data_dir}; stop it" in node_command.only_complaint(done)
        client = daemon_process.boto_client(server)
        client.put_object(Bucket=daemon_process.BUCKET, Key="k", Body=b"unharmed")


def test_flag_beats_environment_beats_file(tmp_path: pathlib.Path) -> None:
    by_file, by_variable, by_flag = map(str, server_process.free_ports(3))
    config = tmp_path / "c.toml"
    config.write_text(f"health_port = {by_file}\nworkers = 1\n")
    for flag, variable, winner in (
        (by_flag, by_variable, by_flag),
        ("", by_variable, by_variable),
        ("", "", by_file),
    ):
        server = server_process.couchestor(tmp_path / "node", options={"config": str(config)})
        place = server.command.index("--health-port")
        server.command[place : place + 2] = [f"--health-port={flag}"] if flag else []
        if variable:
            server.environment["COUCHESTOR_HEALTH_PORT"] = variable
        server.ready_url = f"http://127.0.0.1:{winner}/readyz"
        with server:
            assert server.is_ready()
            assert server.terminate() == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_one_line(tmp_path: pathlib.Path) -> None:
    config = tmp_path / "c.toml"
    config.touch(mode=0o000)
    done = node_command.refused_start(tmp_path / "node", {"config": str(config)})
    assert f"cannot read {config}: Permission denied" in node_command.only_complaint(done)
