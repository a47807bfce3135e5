"""The `couchestor` command as a person runs it."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Mapping

from couchestor_bench import server_process


def run(
    *words: str,
    data_dir: pathlib.Path,
    options: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run it to its end. ``options`` are named as on the command line."""
    flags = [f"--{name}={value}" for name, value in (options or {}).items()]
    return subprocess.run(
        [
            *(sys.executable, "-m", "couchestor_daemon.app.command", *words),
            *("--data-dir", str(data_dir), *flags),
        ],
        env={
            **server_process.outer_environment(),
            **server_process.couchestor_environment(),
            **(environment or {}),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def refused_start(
    data_dir: pathlib.Path,
    options: Mapping[str, str],
    *,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """`couchestor serve` on free ports, expected to end by itself."""
    port, metrics_port, health_port, admin_port = server_process.free_ports(4)
    ports = {
        "port": str(port),
        "metrics-port": str(metrics_port),
        "health-port": str(health_port),
        "admin-port": str(admin_port),
    }
    return run("serve", data_dir=data_dir, options={**ports, **options}, environment=environment)


def only_complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The one line by which a refused start explains itself; the last thing it says."""
    assert done.returncode in (1, 2), (done.returncode, done.stderr)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr, done.stderr
    lines = done.stderr.splitlines()
    complaints = [line for line in lines if line.startswith("couchestor: ")]
    assert complaints == lines[-1:], done.stderr
    return complaints[0]
