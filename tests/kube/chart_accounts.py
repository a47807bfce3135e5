"""Service accounts of the operator with the rights that the chart gives them, and no others."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from tests.kube import control_plane, helm_runs

from couchestor_operator.adapters import kube_access

TOKEN_SECONDS: Final = 3600
KINDS: Final = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")

Right = tuple[str, str, str]
"""Group of the API, resource with its subresource, verb."""


class Account:
    """The operator of one release.

    Args:
        settings: ``operator.settings`` of the chart's values.
    """

    def __init__(
        self, plane: control_plane.ControlPlane, helm: helm_runs.Helm, **settings: str
    ) -> None:
        self._plane = plane
        # Longer names would be cut.
        self._release = f"couchestor-{settings['leaseName']}"
        values = {"operator": {"settings": settings}, "node": {"enabled": False}}
        documents = helm.rendered(values, release=self._release)
        self._documents = [each for each in documents if each["kind"] in KINDS]

    @property
    def user(self) -> str:
        """As the API server names it."""
        (account,) = [one for one in self._documents if one["kind"] == "ServiceAccount"]
        metadata = account["metadata"]
        return f"system:serviceaccount:{metadata['namespace']}:{metadata['name']}"

    def granted(self) -> set[Right]:
        """What its roles name, wherever."""
        rules = [rule for one in self._documents for rule in one.get("rules", ())]
        return {
            (group, resource, verb)
            for rule in rules
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    def used(self) -> Iterator[tuple[Right, int]]:
        """What it has asked the API server for, with the status of the answer."""
        for entry in self._plane.audited():
            if entry["user"]["username"] != self.user:
                continue
            what = entry["objectRef"]
            resource = "/".join(filter(None, (what["resource"], what.get("subresource"))))
            right = (what.get("apiGroup", ""), resource, entry["verb"])
            yield right, entry["responseStatus"]["code"]

    def opened(self, folder: pathlib.Path) -> kube_access.Access:
        """Give it its rights; how to be it."""
        for document in self._documents:
            self._plane.applied(document)
        _, _, namespace, name = self.user.split(":")
        status, answer = self._plane.request(
            "POST",
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
            {"spec": {"expirationSeconds": TOKEN_SECONDS}},
        )
        assert status == 201, answer
        token_file = folder / "token"
        token_file.touch(0o600)
        token_file.write_text(answer["status"]["token"])
        return kube_access.Access(
            url=self._plane.url, ca_file=self._plane.ca_file, token_file=token_file
        )


def kubeconfig(access: kube_access.Access, file: pathlib.Path) -> pathlib.Path:
    """A kubeconfig that says how to be who ``access`` is."""
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tests",
        "clusters": [
            {
                "name": "plane",
                "cluster": {"server": access.url, "certificate-authority": str(access.ca_file)},
            }
        ],
        "users": [{"name": "tests", "user": {"token": access.token_file.read_text()}}],
        "contexts": [{"name": "tests", "context": {"cluster": "plane", "user": "tests"}}],
    }
    file.touch(0o600)
    file.write_bytes(msgspec.yaml.encode(document))
    return file
