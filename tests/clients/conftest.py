"""One daemon for the clients that have an environment of their own, and real files for them."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from couchestor_bench import server_process

_ROOT = pathlib.Path(__file__).resolve().parents[2]
for _folder in (_ROOT, *(_ROOT / name for name in ("domain", "daemon", "gateway", "bench"))):
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))


@pytest.fixture(scope="session")
def daemon(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[server_process.ServerProcess]:
    from tests.functional import daemon_process

    with daemon_process.running(tmp_path_factory.mktemp("clients") / "node") as server:
        yield server


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Some seventy real files, one of them so long that clients send it in parts."""
    from tests.functional import library_tree

    folder = tmp_path_factory.mktemp("tree") / "lib"
    return library_tree.copy(folder, packages=("email", "json", "asyncio"), large_mib=17)


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients find their way by what the test tells them, and ask no service of a cloud."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
