"""Where the Kubernetes API is, and how it is spoken to: address, token, certificates."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from couchestor_domain import errors, units

SERVICE_ACCOUNT: Final = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_BYTES_MAX: Final = 64 * units.KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How to reach one API server. Neither its text nor any error shows a token.

    Raises:
        ConfigurationError: the URL is not one over TLS.
    """

    url: str
    ca_file: pathlib.Path
    token_file: pathlib.Path
    """Read again every minute: tokens that Kubernetes mounts are replaced while in use."""
    deadline_seconds: float = 10.0
    """For one request, from connecting to the last byte."""

    def __post_init__(self) -> None:
        if not self.url.startswith("https://") or "@" in self.url:
            raise errors.ConfigurationError(
                "the URL of the Kubernetes API must begin with https:// and hold no credentials"
            )


def in_cluster(environment: Mapping[str, str], *, folder: pathlib.Path = SERVICE_ACCOUNT) -> Access:
    """What a pod is given by its service account.

    Raises:
        ConfigurationError: this is no pod, or it is given no account.
    """
    host = environment.get("KUBERNETES_SERVICE_HOST", "")
    port = environment.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        raise errors.ConfigurationError(
            "this does not run in a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are "
            "not set, so give the URL of the Kubernetes API, its CA file and a token file"
        )
    bracketed = f"[{host}]" if ":" in host else host
    return Access(
        url=f"https://{bracketed}:{port}", ca_file=folder / "ca.crt", token_file=folder / "token"
    )


def own_namespace(*, folder: pathlib.Path = SERVICE_ACCOUNT) -> str:
    """The namespace of this pod; outside of one, that which is meant where none is named."""
    try:
        return (folder / "namespace").read_text().strip() or "default"
    except OSError:
        return "default"


def token_of(access: Access) -> str:
    """The token as it is now. Reads the file.

    Raises:
        KubernetesApiError: it cannot be read, or holds no token. It may be there later.
    """
    try:
        with access.token_file.open("rb") as file:
            token = file.read(TOKEN_BYTES_MAX).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it holds no token"
        # Not chained: the decoding error shows what it could not decode.
        raise errors.KubernetesApiError(
            f"the token file {access.token_file} cannot be used: {why}"
        ) from None
    if not token or not token.isprintable() or " " in token:
        raise errors.KubernetesApiError(
            f"the token file {access.token_file} cannot be used: it holds no token"
        )
    return token
