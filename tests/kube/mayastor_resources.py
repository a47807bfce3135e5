"""Mayastor as its resources show it: definitions, pools, volumes, and a manager that works.

The manager does what the older control plane does with ``replicaCount``, one step at a time and
when the test says so; where the operator names a pool or a replica, it takes that.
"""

from __future__ import annotations

import itertools
import time
from typing import Any, Final

import kubernetes
from tests.kube import control_plane

from couchestor_operator.resources import disk_pool, mayastor_volume, persistent_volume

SERVED_SECONDS_MAX: Final = 30.0

_numbers: Final = itertools.count()


def _definition(kind: str, plural: str, versions: tuple[str, ...], spec: Any) -> dict[str, Any]:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": spec or anything, "status": anything}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{disk_pool.GROUP}"},
        "spec": {
            "group": disk_pool.GROUP,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": version == versions[0],
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": schema},
                }
                for version in versions
            ],
        },
    }


# Fields that are not here are dropped by the API server, as the real definition has it.
_VOLUME_SPEC: Final = {
    "type": "object",
    "required": ["replicaCount", "requiredBytes"],
    "properties": {
        "replicaCount": {"type": "integer", "minimum": 1},
        "requiredBytes": {"type": "integer", "minimum": 1},
        "limitBytes": {"type": "integer", "minimum": 0},
        "protocol": {"type": "string"},
        "preferredNodes": {"type": "array", "items": {"type": "string"}},
        "requiredNodes": {"type": "array", "items": {"type": "string"}},
    },
}


def install(client: Any, plane: control_plane.ControlPlane) -> None:
    """Have the definitions, and wait until they are served."""
    api = kubernetes.client.ApiextensionsV1Api(client)
    for document in (
        _definition("DiskPool", disk_pool.PLURAL, disk_pool.VERSIONS, None),
        _definition(
            "MayastorVolume",
            mayastor_volume.PLURAL,
            (mayastor_volume.VERSION,),
            _VOLUME_SPEC,
        ),
    ):
        api.create_custom_resource_definition(document)
    deadline_seconds = time.monotonic() + SERVED_SECONDS_MAX
    paths = [
        f"/apis/{disk_pool.GROUP}/{disk_pool.VERSIONS[0]}/{disk_pool.PLURAL}",
        f"/apis/{mayastor_volume.GROUP}/{mayastor_volume.VERSION}/{mayastor_volume.PLURAL}",
    ]
    while any(plane.request("GET", path)[0] != 200 for path in paths):
        assert time.monotonic() < deadline_seconds, paths
        time.sleep(0.1)


class Cluster:
    """Pools and volumes of a namespace of its own, and the manager's works on them."""

    def __init__(self, plane: control_plane.ControlPlane) -> None:
        self.namespace = f"mayastor-{next(_numbers)}"
        self._plane = plane
        inside = f"namespaces/{self.namespace}"
        self._pools = f"/apis/{disk_pool.GROUP}/{disk_pool.VERSIONS[0]}/{inside}/{disk_pool.PLURAL}"
        self._volumes = (
            f"/apis/{mayastor_volume.GROUP}/{mayastor_volume.VERSION}/{inside}"
            f"/{mayastor_volume.PLURAL}"
        )
        self._asked("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})

    # -- what people do ----------------------------------------------------------------------------

    def put_pool(self, name: str, *, node: str, tier: str, available_bytes: int) -> None:
        """Have a pool that is online."""
        self._asked(
            "POST",
            self._pools,
            {
                "apiVersion": f"{disk_pool.GROUP}/{disk_pool.VERSIONS[0]}",
                "kind": "DiskPool",
                "metadata": {"name": name, "labels": {"tier": tier}},
                "spec": {"node": node, "disks": ["/dev/sda"]},
            },
        )
        self.fill_pool(name, available_bytes=available_bytes)

    def fill_pool(self, name: str, *, available_bytes: int) -> None:
        """Leave so much room in it."""
        status = {"cr_state": "Created", "pool_status": "Online", "available": available_bytes}
        self._asked("PATCH", f"{self._pools}/{name}/status", {"status": status})

    def put_claim(self, name: str, *, size_bytes: int, storage_class: str) -> None:
        """Have the PersistentVolume of a volume."""
        claim = {
            "metadata": {"name": persistent_volume.name_of(name)},
            "spec": {
                "storageClassName": storage_class,
                "capacity": {"storage": str(size_bytes)},
                "accessModes": ["ReadWriteOnce"],
                "csi": {"driver": "io.openebs.csi-mayastor", "volumeHandle": name},
            },
        }
        self._asked("POST", "/api/v1/persistentvolumes", claim)

    def put_volume(
        self, name: str, *homes: str, size_bytes: int, storage_class: str = "mayastor"
    ) -> None:
        """Have a volume in use, with a whole replica in each of the pools, and its claim."""
        self.put_claim(name, size_bytes=size_bytes, storage_class=storage_class)
        self._asked(
            "POST",
            self._volumes,
            {
                "apiVersion": f"{mayastor_volume.GROUP}/{mayastor_volume.VERSION}",
                "kind": "MayastorVolume",
                "metadata": {"name": name},
                "spec": {
                    "replicaCount": len(homes),
                    "requiredBytes": size_bytes,
                    "protocol": "nvmf",
                },
            },
        )
        replicas = [self._replica(name, home) for home in homes]
        children = [{"uri": each["uri"], "state": "CHILD_ONLINE"} for each in replicas]
        self._write_status(
            name,
            {
                "size": size_bytes,
                "state": "healthy",
                "replicas": replicas,
                "nexus": {"node": "node-of-the-pod", "children": children},
            },
        )

    def delete_volume(self, name: str) -> None:
        """Have it be gone."""
        self._asked("DELETE", f"{self._volumes}/{name}")

    def stop_using(self, name: str) -> None:
        """Have nobody use the volume: it has no nexus then."""
        self._write_status(name, {"nexus": None})

    def volume(self, name: str) -> Any:
        """The document of a volume."""
        return self._asked("GET", f"{self._volumes}/{name}")

    def homes(self, name: str) -> list[str]:
        """The pools of its replicas."""
        return [each["pool"] for each in self.volume(name)["status"]["replicas"]]

    # -- what the manager does ---------------------------------------------------------------------

    def break_replica(self, name: str, pool_name: str) -> None:
        """Have the replica in a pool fault."""
        self._set_child(name, pool_name, "CHILD_FAULTED")

    def settle(self, name: str) -> bool:
        """Take one step towards what is wanted: make a replica, sync one, take one away.

        Returns:
            Whether there was one to take.
        """
        document = self.volume(name)
        status, wanted_count = document["status"], document["spec"]["replicaCount"]
        annotations = document["metadata"].get("annotations", {})
        too_many = len(status["replicas"]) - wanted_count
        leaving = annotations.get(mayastor_volume.LEAVING_REPLICA)
        syncing = [one for one in status["nexus"]["children"] if one["state"] == "CHILD_DEGRADED"]
        if too_many > 0 and leaving is not None:
            gone = [one["uri"] for one in status["replicas"] if one["pool"] == leaving]
            for part in (status, status["nexus"]):
                key = "replicas" if part is status else "children"
                part[key] = [one for one in part[key] if one["uri"] not in gone]
            self._write_status(name, status)
        elif too_many < 0:
            made = self._replica(name, annotations[mayastor_volume.TARGET_POOL])
            assert made["node"] == document["spec"]["preferredNodes"][0]
            status["replicas"].append(made)
            child = {"uri": made["uri"], "state": "CHILD_DEGRADED"}
            status["nexus"]["children"].append(child)
            self._write_status(name, status)
        elif syncing:
            home = next(
                one["pool"] for one in status["replicas"] if one["uri"] == syncing[0]["uri"]
            )
            self._set_child(name, home, "CHILD_ONLINE")
        else:
            return False
        return True

    def _set_child(self, name: str, pool_name: str, state: str) -> None:
        status = self.volume(name)["status"]
        (uri,) = [one["uri"] for one in status["replicas"] if one["pool"] == pool_name]
        for child in status["nexus"]["children"]:
            if child["uri"] == uri:
                child["state"] = state
        self._write_status(name, status)

    def _replica(self, volume_name: str, home: str) -> dict[str, str]:
        node = self._asked("GET", f"{self._pools}/{home}")["spec"]["node"]
        return {"node": node, "pool": home, "uri": f"nvmf://{node}/{volume_name}"}

    def _write_status(self, name: str, status: dict[str, Any]) -> None:
        self._asked("PATCH", f"{self._volumes}/{name}/status", {"status": status})

    def _asked(self, method: str, path: str, body: object = None) -> Any:
        status, answer = self._plane.request(method, path, body)
        assert status in (200, 201), answer
        return answer
