"""The root key: drawn once, shown once, readable by its owner alone."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import pty
import re
import select
import signal
import stat
import subprocess
import time

import pytest
from tests.functional import daemon_process, node_command

from couchestor_bench import server_process, signing

pytestmark = pytest.mark.skipif(daemon_process.is_peer(), reason="our root key")


def _without_keys(server: server_process.ServerProcess) -> server_process.ServerProcess:
    for name in ("COUCHESTOR_ROOT_ACCESS_KEY", "COUCHESTOR_ROOT_SECRET_KEY"):
        del server.environment[name]
    return server


def _shown_on_a_terminal(server: server_process.ServerProcess) -> str:
    """What a start at a terminal prints until it serves; Ctrl-C ends it."""
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        server.command,
        env={**server_process.outer_environment(), **server.environment},
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
    )
    os.close(inner)
    text = ""
    deadline = time.monotonic() + 60
    try:
        while "Ctrl-C stops it" not in text:
            assert time.monotonic() < deadline, text
            if select.select([outer], [], [], 1)[0]:
                text += os.read(outer, 65536).decode()
        process.send_signal(signal.SIGINT)
        # Read on, or a full terminal would hold up the end.
        with contextlib.suppress(OSError):
            while piece := os.read(outer, 65536):
                text += piece.decode()
        assert process.wait(30) == 0, text
        return text
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(outer)


def test_a_terminal_shows_the_secret_once(tmp_path: pathlib.Path) -> None:
    server = _without_keys(server_process.couchestor(tmp_path / "node", options={"workers": "1"}))
    first = _shown_on_a_terminal(server)
    file = tmp_path / "node" / "credentials.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    kept = json.loads(file.read_text())
    shown = re.search(r"export AWS_SECRET_ACCESS_KEY=(\S+)", first)
    assert shown is not None
    assert shown[1] == kept["secret_key"]
    again = _shown_on_a_terminal(server)
    assert kept["secret_key"] not in again
    assert str(file) in again


def test_elsewhere_it_is_never_shown_and_a_loose_file_is_refused(tmp_path: pathlib.Path) -> None:
    server = _without_keys(server_process.couchestor(tmp_path / "node", options={"workers": "1"}))
    with server:
        file = server.data_dir / "credentials.json"
        kept = json.loads(file.read_text())
        server.credentials = signing.Credentials(
            access_key=kept["access_key"], secret_key=kept["secret_key"]
        )
        daemon_process.boto_client(server).create_bucket(Bucket="mine")
        assert server.terminate() == 0
        log = server.log_path.read_text()
        assert kept["secret_key"] not in log
        assert str(file) in log
    file.chmod(0o640)
    no_keys = {"COUCHESTOR_ROOT_ACCESS_KEY": "", "COUCHESTOR_ROOT_SECRET_KEY": ""}
    done = node_command.refused_start(server.data_dir, {}, environment=no_keys)
    assert f"run: chmod 600 {file}" in node_command.only_complaint(done)
