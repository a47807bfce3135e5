"""One control plane for all tests here: `make test-kube` builds it and says where it is."""

from __future__ import annotations

import os
import pathlib
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final

import kubernetes
import msgspec
import pytest

from couchestor_operator.adapters import kube_access, kube_api, system_clock

if TYPE_CHECKING:
    from tests.kube import (
        chart_accounts,
        control_plane,
        helm_runs,
        operator_runs,
        operator_stage,
    )

_ROOT = pathlib.Path(__file__).resolve().parents[2]
if str(_ROOT) not in sys.path:
    sys.path.append(str(_ROOT))

CRDS: Final = _ROOT / "helm" / "couchestor" / "crds"
ESTABLISHED_SECONDS_MAX: Final = 30.0


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


@pytest.fixture(scope="session")
def client(plane: control_plane.ControlPlane) -> Iterator[Any]:
    """The official client, as the operator will use it."""
    configuration = kubernetes.client.Configuration(host=plane.url)
    configuration.ssl_ca_cert = str(plane.ca_file)
    configuration.api_key = {"authorization": f"Bearer {plane.token}"}
    with kubernetes.client.ApiClient(configuration) as opened:
        yield opened


@pytest.fixture(scope="session")
def access(
    plane: control_plane.ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> kube_access.Access:
    """How the operator is told where the API is."""
    token_file = tmp_path_factory.mktemp("account") / "token"
    token_file.touch(0o600)
    token_file.write_text(plane.token)
    return kube_access.Access(url=plane.url, ca_file=plane.ca_file, token_file=token_file)


@pytest.fixture
async def api(access: kube_access.Access) -> AsyncIterator[kube_api.KubeApi]:
    """The operator's own way to the API."""
    async with kube_api.opened(access, system_clock.SystemClock()) as opened:
        yield opened


@pytest.fixture(scope="session")
def crds(client: Any, plane: control_plane.ControlPlane) -> dict[str, Any]:
    """The files of the chart, installed and served. Returns what the server has, by plural."""
    api = kubernetes.client.ApiextensionsV1Api(client)
    for path in sorted(CRDS.iterdir()):
        api.create_custom_resource_definition(msgspec.yaml.decode(path.read_bytes()))
    deadline_seconds = time.monotonic() + ESTABLISHED_SECONDS_MAX
    while True:
        listed = client.sanitize_for_serialization(api.list_custom_resource_definition())
        found = {item["spec"]["names"]["plural"]: item for item in listed["items"]}
        if all(_is_established(item) and _is_served(plane, item) for item in found.values()):
            return found
        assert time.monotonic() < deadline_seconds, {
            name: item.get("status") for name, item in found.items()
        }
        time.sleep(0.1)


@pytest.fixture(scope="session")
def mayastor(client: Any, plane: control_plane.ControlPlane, crds: dict[str, Any]) -> None:
    """Definitions as Mayastor installs them, after ours."""
    from tests.kube import mayastor_resources

    assert crds
    mayastor_resources.install(client, plane)


@pytest.fixture(scope="session")
def helm(binaries: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> helm_runs.Helm:
    """helm without a cluster."""
    from tests.kube import helm_runs

    return helm_runs.Helm(binaries / "helm", tmp_path_factory.mktemp("helm"))


@pytest.fixture
def stage(plane: control_plane.ControlPlane, mayastor: None) -> operator_stage.Stage:
    """What an operator finds, and nothing else."""
    from tests.kube import operator_runs, operator_stage

    operator_runs.remove_policies(plane)
    return operator_stage.Stage(plane)


@pytest.fixture
def volume_manager() -> str:
    """Of ``operators``; a test that means another one overrides it by a parameter."""
    return "resources"


@pytest.fixture
def account(
    stage: operator_stage.Stage, helm: helm_runs.Helm, volume_manager: str
) -> chart_accounts.Account:
    """Who ``operators`` are: what the chart gives them the rights for, and for nothing else."""
    from tests.kube import chart_accounts

    over_rest = {"mayastorUrl": "http://mayastor"} if volume_manager == "rest" else {}
    return chart_accounts.Account(
        stage.plane,
        helm,
        leaseName=stage.lease,
        mayastorNamespace=stage.cluster.namespace,
        volumeManager=volume_manager,
        **over_rest,
    )


@pytest.fixture
async def operators(
    stage: operator_stage.Stage, account: chart_accounts.Account, tmp_path: pathlib.Path
) -> AsyncIterator[operator_runs.Operators]:
    """Operators that see this stage, and no other's volumes, by the chart's own account."""
    from tests.kube import helm_runs, operator_runs

    async with operator_runs.prometheus(stage.heat) as url:
        with operator_runs.over(
            account.opened(tmp_path),
            tmp_path,
            prometheus_url=url,
            mayastor_namespace=stage.cluster.namespace,
            lease_name=stage.lease,
            lease_namespace=helm_runs.NAMESPACE,
            pass_interval_seconds="0.5",
            sync_poll_interval_seconds="0.2",
        ) as started:
            yield started


def _is_established(item: dict[str, Any]) -> bool:
    conditions = item.get("status", {}).get("conditions", ())
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def _is_served(plane: control_plane.ControlPlane, item: dict[str, Any]) -> bool:
    """Established is said a little before: until then each request is put off (429)."""
    spec = item["spec"]
    paths = [
        f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}"
        for version in spec["versions"]
    ]
    return all(plane.request("GET", path)[0] == 200 for path in paths)
