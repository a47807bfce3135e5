"""One control plane for all tests here: `make test-kube` builds it and says where it is."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.kube import control_plane

_ROOT = pathlib.Path(__file__).resolve().parents[2]
if str(_ROOT) not in sys.path:
    sys.path.append(str(_ROOT))


@pytest.fixture(scope="session")
def binaries() -> pathlib.Path:
    """The folder of kube-apiserver and etcd."""
    folder = os.environ.get("COUCHESTOR_KUBE_SERVERS")
    assert folder, "run these tests by `make test-kube`: it builds the servers they need"
    return pathlib.Path(folder)


@pytest.fixture(scope="session")
def plane(
    binaries: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[control_plane.ControlPlane]:
    """A control plane that all tests share; what one makes there it names for itself."""
    from tests.kube import control_plane

    with control_plane.running(binaries, tmp_path_factory.mktemp("plane")) as started:
        yield started
