"""Where the Kubernetes API is for people: the cluster that their kubeconfig names."""

from __future__ import annotations

import asyncio
import pathlib
from dataclasses import dataclass
from typing import Any

import yaml
from kubernetes.aio import client as kube_client
from kubernetes.aio import config as kube_client_config

from couchestor_domain import errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The current context of a kubeconfig, or the one that is named."""

    path: pathlib.Path
    context: str | None = None
    deadline_seconds: float = 10.0
    """For one request, from connecting to the last byte."""


def configuration_of(access: Access) -> Any:
    """What the client is told. Reads files, and may run what gives credentials.

    Raises:
        ConfigurationError: the file cannot be used.
    """
    if not access.path.is_file():
        raise errors.ConfigurationError(
            f"there is no kubeconfig {access.path}: give the path of the one that kubectl uses"
        )
    configuration = kube_client.Configuration()
    try:
        # An event loop of its own: called from a thread for files.
        asyncio.run(
            kube_client_config.load_kube_config(
                config_file=str(access.path),
                context=access.context,
                client_configuration=configuration,
                persist_config=False,
            )
        )
    except (
        kube_client_config.ConfigException,
        OSError,
        ValueError,
        KeyError,
        yaml.YAMLError,
    ) as exc:
        raise errors.ConfigurationError(
            f"the kubeconfig {access.path} cannot be used: {exc}"
        ) from exc
    return configuration


def authorization(access: Access) -> str | None:
    """The value of the Authorization header as it is now; None: certificates say who this is.

    Raises:
        KubernetesApiError: it cannot be had. It may be there later.
    """
    try:
        header: str | None = configuration_of(access).api_key.get("BearerToken")
        return header
    except errors.ConfigurationError as exc:
        raise errors.KubernetesApiError(exc.message) from exc
