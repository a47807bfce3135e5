"""The systemd files: valid, tight, and naming only what `make install` puts there."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import socket
import subprocess
import tomllib
import typing

import pytest
from tests.functional import daemon_process

from couchestor_bench import server_process
from couchestor_daemon.app import command, option_table, supervisor

_ROOT: typing.Final = pathlib.Path(__file__).resolve().parents[2]
_UNIT: typing.Final = _ROOT / "systemd" / "couchestord.service"
_EXPOSURE_MAX: typing.Final = "30"
"""Ten times the score that `systemd-analyze security` gives: below 3 of 10."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def _directives() -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", _UNIT.read_text(), re.MULTILINE))


def test_unit_says_what_the_daemon_relies_on() -> None:
    directives = _directives()
    assert directives["Type"] == "notify"
    assert directives["NotifyAccess"] == "main"
    # A child may be silent for 20 seconds before it is killed: the watchdog must be slower.
    assert int(directives["WatchdogSec"]) > 20
    # Only the supervisor gets SIGTERM: it drains the others.
    assert directives["KillMode"] == "mixed"
    config = tomllib.loads((_ROOT / "systemd" / "couchestor.toml").read_text())
    stop_seconds = supervisor.CLOSING_SECONDS + supervisor.CONCLUDE_SECONDS_MAX
    assert int(directives["TimeoutStopSec"]) > config["drain_seconds"] + stop_seconds
    assert directives["Restart"] == "on-failure"
    assert directives["RestartPreventExitStatus"] == str(command.USAGE_EXIT)
    assert config["data_dir"] == f"/var/lib/{directives['StateDirectory']}"


def test_unit_names_what_make_install_puts_there() -> None:
    makefile = (_ROOT / "Makefile").read_text()
    prefix = re.search(r"^PREFIX \?= (\S+)$", makefile, re.MULTILINE)
    assert prefix is not None
    program, act, flag, config = _directives()["ExecStart"].split()
    assert program == f"{prefix[1]}/bin/couchestor"
    assert (act, flag) == ("serve", "--config")
    # The same file a person's own `couchestor status` looks for.
    assert pathlib.Path(config) == option_table.SYSTEM_CONFIG_PATH
    user = _directives()["User"]
    assert re.search(rf"^u\s+{user}\s", _systemd_file("couchestor.sysusers.conf"), re.MULTILINE)
    assert f"0700 {user} {user}" in _systemd_file("couchestor.tmpfiles.conf")


def _systemd_file(name: str) -> str:
    return (_ROOT / "systemd" / name).read_text()


def test_shipped_configuration_is_accepted() -> None:
    path = _ROOT / "systemd" / "couchestor.toml"
    told = option_table.load({"config": str(path)}, {})
    assert told.log_json
    # What is commented out is right too.
    text = re.sub(r"^# (\w+ = )", r"\1", path.read_text(), flags=re.MULTILINE)
    assert (
        {"devices", "tls_cert", "tls_key"} <= set(tomllib.loads(text)) <= set(option_table.BY_NAME)
    )


@needs_systemd
@pytest.mark.parametrize(
    "words",
    [
        ["verify", "--man=no"],
        ["security", "--offline=true", f"--threshold={_EXPOSURE_MAX}", "--no-pager"],
    ],
    ids=["verify", "security"],
)
def test_systemd_analyze_finds_nothing(tmp_path: pathlib.Path, words: list[str]) -> None:
    unit = tmp_path / _UNIT.name
    text = _UNIT.read_text()
    program = _directives()["ExecStart"].split()[0]
    if not os.access(program, os.X_OK):
        # Not installed here. Only the program's place differs: verify wants to find it.
        text = text.replace(f"ExecStart={program}", "ExecStart=/bin/true")
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", *words, str(unit)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr
    if words[0] == "verify":
        assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.skipif(daemon_process.is_peer(), reason="our notifications")
def test_the_real_daemon_notifies_ready_watchdog_and_stopping(tmp_path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "n"))
        receiver.settimeout(60)
        server = server_process.couchestor(tmp_path / "node", options={"workers": "1"})
        server.environment |= {
            "NOTIFY_SOCKET": str(tmp_path / "n"),
            "WATCHDOG_USEC": "900000",
            "RUNTIME_DIRECTORY": str(tmp_path / "run"),
        }
        with server:
            seen: set[str] = set()
            while not {"READY=1", "WATCHDOG=1"} <= seen:
                seen.update(receiver.recv(4096).decode().split("\n"))
            assert f"MAINPID={server.pid}" in seen
            assert (tmp_path / "run" / "metrics").is_dir()
            assert server.terminate() == 0
            while "STOPPING=1" not in seen:
                seen.update(receiver.recv(4096).decode().split("\n"))
