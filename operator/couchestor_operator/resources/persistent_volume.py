"""PersistentVolumes, as far as a policy asks about the volume behind one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from couchestor_domain import errors
from couchestor_operator.ports import metrics_provider
from couchestor_operator.resources import field_types

VERSION: Final = "v1"
PLURAL: Final = "persistentvolumes"


class PersistentVolumeSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What was asked for."""

    storage_class_name: str = ""


class PersistentVolume(msgspec.Struct, frozen=True, kw_only=True):
    """What Kubernetes knows of a volume."""

    metadata: field_types.ObjectMeta
    spec: PersistentVolumeSpec = PersistentVolumeSpec()


def name_of(volume_name: str) -> str:
    """The name of the PersistentVolume of a volume, as the provisioner gives it."""
    return metrics_provider.PV_PREFIX + metrics_provider.volume_key(volume_name)


def read(document: Mapping[str, Any]) -> PersistentVolume:
    """What a document says.

    Raises:
        KubernetesApiError: the document is none of a PersistentVolume.
    """
    try:
        return msgspec.convert(document, PersistentVolume)
    except msgspec.ValidationError as exc:
        raise errors.KubernetesApiError(f"a PersistentVolume cannot be read: {exc}") from exc
