"""The daemon's image as far as no container runtime is needed: its files, and that they serve."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import time
import uuid
from typing import Final

import image_files
import pytest

from couchestor_daemon.app import credentials_file

# Everything is compiled anew, as the Dockerfile says.
pytestmark = pytest.mark.timeout(300)

_DOCKERFILES: Final = [image_files.ROOT / name / "Dockerfile" for name in ("daemon", "operator")]
_USER: Final = 65532
_READY_SECONDS_MAX: Final = 60.0
# What distroless has below Python: the C and C++ runtimes of its "cc", and zlib.
_LIBRARIES: Final = re.compile(
    r"(linux-vdso|ld-linux-\S+|libc|libm|libdl|librt|libpthread|libutil|libgcc_s|libstdc\+\+|libz)"
    r"\.so[.\d]*"
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """``/opt/couchestor`` of the image."""
    return image_files.built(_DOCKERFILES[0], tmp_path_factory.mktemp("image"))


@pytest.mark.parametrize("path", _DOCKERFILES, ids=lambda path: path.parent.name)
def test_a_dockerfile_pins_copies_and_confines(path: pathlib.Path) -> None:
    arguments, (build, last) = image_files.read(path)
    assert arguments == {
        "BUILD_IMAGE": "debian:13-slim",
        "BASE_IMAGE": "gcr.io/distroless/python3-debian13:nonroot",
    }
    assert (build.base, last.base) == ("${BUILD_IMAGE} AS build", "${BASE_IMAGE}")
    for text in build.texts("COPY"):
        for name in text.split()[:-1]:
            assert (image_files.ROOT / name).exists(), name
            assert image_files.sent(name), f".dockerignore leaves out {name}"
    for text in build.texts("RUN"):
        if " install " in text and "apt-get" not in text:
            assert "--require-hashes -r requirements/" in text or "--no-deps --no-index" in text
    assert {each.name for each in last.instructions} <= {
        *("COPY", "ENV", "USER", "EXPOSE", "ENTRYPOINT", "CMD")
    }
    assert last.texts("COPY") == ["--from=build /opt/couchestor /opt/couchestor"]
    (user,) = last.texts("USER")
    assert user == {"daemon": "65532:65532", "operator": "65534:65534"}[path.parent.name]
    (entry,) = last.texts("ENTRYPOINT")
    # A list: in one text it would need a shell.
    assert re.fullmatch(r'\["/opt/couchestor/bin/couchestor(-operator)?"\]', entry)


def test_what_is_no_part_of_an_image_is_not_sent() -> None:
    for name in (".git/config", ".venv/bin/python", "var/data", "bench/results/a.json", "tests/x"):
        assert not image_files.sent(name), name
    for name in ("daemon/couchestor_daemon/__pycache__/x.pyc", "operator/Dockerfile"):
        assert not image_files.sent(name), name
    assert image_files.sent("requirements/daemon.txt")
    assert image_files.sent("daemon/couchestor_daemon/app/command.py")


def test_the_image_tells_its_commands(image: pathlib.Path) -> None:
    for words in (["--help"], ["--version"], ["serve", "--help"]):
        ended = _ran(image, *words)
        assert ended.returncode == 0, ended.stderr
        assert "couchestor" in ended.stdout
    assert list(image.glob("bin/pip*")) == []


def test_the_image_needs_no_library_that_its_base_has_not(image: pathlib.Path) -> None:
    own = {path.name for path in image.rglob("*.so*")}
    for path in image.rglob("*.so*"):
        linked = subprocess.run(["ldd", str(path)], capture_output=True, text=True).stdout
        # Of one that needs none there is but a sentence.
        names = {
            found.rpartition("/")[2] for found in re.findall(r"^\s*(\S+\.so\S*)", linked, re.M)
        }
        strangers = {name for name in names - own if not _LIBRARIES.fullmatch(name)}
        assert strangers == set(), path


def test_the_image_serves_on_folders_that_were_prepared(
    image: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """As the user of the tests: an interpreter in somebody's home is for nobody else."""
    data, media = tmp_path / "data", tmp_path / "media"
    mounts = [media / f"disk{number}" for number in range(6)]
    devices = [each / "couchestor" for each in mounts]
    # Nothing is mounted there, so the folders are made by hand.
    for each in (data, *devices):
        each.mkdir(parents=True)
    user, group = (_USER, _USER) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    prepared = _prepared(image, user, group, data, *devices)
    assert (prepared.returncode, prepared.stderr) == (0, "")
    assert {(each.stat().st_uid, each.stat().st_gid) for each in (data, *devices)} == {
        (user, group)
    }
    settings = tmp_path / "couchestor.toml"
    settings.write_text(
        f'data_dir = "{data}"\ndevices = {[str(each) for each in devices]}\nport = 0\nworkers = 1\n'
        "metrics_port = 0\nhealth_port = 0\nlog_json = true\n"
    )
    environment = {
        **image_files.bare_environment(image),
        "COUCHESTOR_CONFIG": str(settings),
        credentials_file.ACCESS_KEY_VARIABLE: "ROOTKEY",
        credentials_file.SECRET_VARIABLES[0]: "rootsecret",
    }
    serving = subprocess.Popen(
        [image / "bin" / "couchestor", "serve"],
        env=environment,
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        deadline_seconds = time.monotonic() + _READY_SECONDS_MAX
        while _ran(image, "status", environment=environment).returncode != 0:
            assert serving.poll() is None, serving.communicate()[0].decode()
            assert time.monotonic() < deadline_seconds
            time.sleep(0.2)
        # As `kubectl exec POD -- couchestor device list` does.
        listed = _ran(image, "device", "list", environment=environment)
        assert listed.stdout.count("present") == len(devices), listed
        serving.terminate()
        assert serving.wait(60) == 0
    finally:
        serving.kill()
        serving.communicate()


def test_folders_are_made_on_media_alone_and_what_cannot_be_stops_nothing(
    image: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    user, group = os.geteuid(), os.getegid()
    unmounted, absent = tmp_path / "couchestor", tmp_path / "absent" / "couchestor"
    # Its parent has something mounted on it wherever Linux runs.
    on_a_medium = pathlib.Path("/dev/shm") / f"couchestor-{uuid.uuid4().hex}"
    prepared = _prepared(image, user, group, unmounted, absent, on_a_medium)
    try:
        assert on_a_medium.stat().st_uid == user
    finally:
        on_a_medium.rmdir()
    assert not unmounted.exists()
    assert (prepared.returncode, prepared.stderr.splitlines()) == (
        0,
        [
            f"{each} is left out: nothing is mounted on {each.parent}; look at it on the machine"
            for each in (unmounted, absent)
        ],
    )


def _prepared(
    image: pathlib.Path, user: int, group: int, *folders: pathlib.Path
) -> subprocess.CompletedProcess[str]:
    script = image_files.ROOT / "helm" / "couchestor" / "files" / "prepare_folders.py"
    words = map(str, (user, group, *folders))
    return subprocess.run(
        [image / "bin" / "python", "-I", "-c", script.read_text(), *words],
        env=image_files.bare_environment(image),
        capture_output=True,
        text=True,
    )


def _ran(
    image: pathlib.Path,
    *words: str,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [image / "bin" / "couchestor", *words],
        env=environment or image_files.bare_environment(image),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
