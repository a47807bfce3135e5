"""The operator's image as far as no container runtime is needed: its files, and that they run."""

from __future__ import annotations

import pathlib
import subprocess

import image_files
import pytest

from couchestor_operator.app import command

# Everything is compiled anew, as the Dockerfile says.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """``/opt/couchestor`` of the image."""
    dockerfile = image_files.ROOT / "operator" / "Dockerfile"
    return image_files.built(dockerfile, tmp_path_factory.mktemp("image"))


def test_the_image_tells_its_options(image: pathlib.Path) -> None:
    for word in ("--help", "--version"):
        ended = _ran(image, word)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "couchestor-operator" in ended.stdout


def test_the_image_has_every_part_of_the_operator(image: pathlib.Path) -> None:
    """It comes as far as looking for a cluster, which is after all has been imported."""
    ended = _ran(image, "--prometheus-url", "http://prometheus:9090")
    assert ended.returncode == command.STATUS_CONFIGURATION
    assert "nothing says where the Kubernetes API is: run this in a pod" in ended.stderr
    assert "Traceback" not in ended.stderr


def _ran(image: pathlib.Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [image / "bin" / "couchestor-operator", *words],
        env=image_files.bare_environment(image),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
