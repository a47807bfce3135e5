"""Documents of the Kubernetes API through the official client, and its refusals as our errors.

Every kind is spoken to by group, version and plural, also those that the client has models of: what
is written is what was read, with every field that a newer API may have added. Nothing is repeated
in here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from concurrent import futures
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec
from kubernetes.aio import client as kube_client

from couchestor_domain import errors, units
from couchestor_operator.adapters import kube_access, kube_config
from couchestor_operator.ports import monotonic_clock

TOKEN_KEPT_SECONDS: Final = 60.0
PAGE_ITEMS_COUNT: Final = 500
COMPLAINT_BYTES_MAX: Final = 64 * units.KIB
_CHANGES: Final = ("ADDED", "MODIFIED", "DELETED", "BOOKMARK")

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Which documents are meant."""

    group: str
    """Empty: of the core, which PersistentVolumes are of."""
    version: str
    plural: str
    namespace: str | None = None
    """None: they have none."""

    @property
    def place(self) -> tuple[str, ...]:
        """What every call of the client begins with."""
        namespace = () if self.namespace is None else (self.namespace,)
        return (self.group, self.version, *namespace, self.plural)

    @property
    def scope(self) -> str:
        """How the client names calls for them."""
        return "cluster" if self.namespace is None else "namespaced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Every document of a kind, as of one moment."""

    documents: list[Document]
    version: str
    """From which a watch goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a watch tells."""

    document: Document | None
    """As it is now, or was last; None: nothing has changed up to ``version``."""
    is_gone: bool
    version: str
    """From which a watch goes on."""


class KubeApi:
    """Reads and writes documents. Use ``opened``, which closes its connections at the end."""

    def __init__(
        self,
        access: kube_access.Access | kube_config.Access,
        *,
        objects: Any,
        files: futures.Executor,
        clock: monotonic_clock.MonotonicClock,
    ) -> None:
        self._access = access
        self._url = objects.api_client.configuration.host
        self._objects = objects
        self._files = files
        self._clock = clock
        self._token_until_seconds = float("-inf")

    async def get(self, kind: Kind, name: str) -> Document | None:
        """A document, fresh; None if there is no such.

        Raises:
            KubernetesApiError: it was not answered, or refused.
        """
        try:
            found: Document = await self._call(kind, "get", name)
            return found
        except errors.KubernetesApiError as exc:
            if exc.context.get("status") == 404:
                return None
            raise

    async def listed(self, kind: Kind) -> Listing:
        """Every document of the kind, page by page.

        Raises:
            KubernetesApiError: it was not answered, or refused.
        """
        found: list[Document] = []
        more: dict[str, str] = {}
        while True:
            page = await self._call(kind, "list", limit=PAGE_ITEMS_COUNT, **more)
            found += page["items"]
            following = page["metadata"].get("continue")
            if not following:
                return Listing(documents=found, version=page["metadata"].get("resourceVersion", ""))
            more = {"_continue": following}

    async def watched(
        self, kind: Kind, *, since: str, seconds: int
    ) -> AsyncGenerator[Change, None]:
        """What changes from a version on, until the server ends it, after ``seconds`` at most.

        Raises:
            KubernetesApiError: it was refused, or broke off; with the status 410 in its context,
                the version is too old: list again.
        """
        method = getattr(self._objects, f"list_{kind.scope}_custom_object_without_preload_content")
        try:
            await self._renew_token()
            response: aiohttp.ClientResponse = await method(
                *kind.place,
                resource_version=since,
                allow_watch_bookmarks=True,
                timeout_seconds=seconds,
                watch=True,
                # For a connection that nobody answers on any more.
                _request_timeout=seconds + self._access.deadline_seconds,
            )
            async with response:
                if response.status != 200:
                    body = await response.content.read(COMPLAINT_BYTES_MAX)
                    raise _refusal(response.status, response.headers, body, f"watch {kind.plural}")
                try:
                    async for line in response.content:
                        change = _change(line, what=f"watch {kind.plural}")
                        if change is not None:
                            yield change
                finally:
                    _abort(response)
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            # Also when the time is over: TimeoutError is an OSError. ValueError: an endless line.
            raise errors.KubernetesApiError(
                f"the watch of {kind.plural} at {self._url} broke off: {type(exc).__name__}: {exc}"
            ) from exc

    async def create(self, kind: Kind, document: Document) -> Document:
        """Make a document.

        Raises:
            VersionConflictError: there is one of that name.
            KubernetesApiError: it was not answered, or refused.
        """
        made: Document = await self._call(kind, "create", dict(document))
        return made

    async def replace(self, kind: Kind, document: Document, *, part: str = "") -> Document:
        """Write a document over the very version that it names.

        Args:
            part: ``status``, to write only that; else only the rest is written.

        Raises:
            VersionConflictError: it is not of that version any more, or gone.
            KubernetesApiError: it was not answered, or refused.
        """
        name = document["metadata"]["name"]
        assert document["metadata"]["resourceVersion"], name
        try:
            written: Document = await self._call(kind, "replace", name, dict(document), part=part)
            return written
        except errors.KubernetesApiError as exc:
            if exc.context.get("status") == 404:
                raise errors.VersionConflictError(
                    f"{kind.plural} {name} is gone: read it again"
                ) from exc
            raise

    async def _call(
        self, kind: Kind, verb: str, *arguments: Any, part: str = "", **options: Any
    ) -> Any:
        suffix = f"_{part}" if part else ""
        method = getattr(self._objects, f"{verb}_{kind.scope}_custom_object{suffix}")
        try:
            async with asyncio.timeout(self._access.deadline_seconds):
                await self._renew_token()
                return await method(*kind.place, *arguments, **options)
        except TimeoutError as exc:
            raise errors.KubernetesApiError(
                f"the Kubernetes API at {self._url} did not answer within "
                f"{self._access.deadline_seconds:g} s"
            ) from exc
        except kube_client.ApiException as exc:
            what = f"{verb} {kind.plural}{suffix.replace('_', '/')}"
            raise _refusal(exc.status or 0, exc.headers or {}, exc.body or "", what) from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise errors.KubernetesApiError(
                f"the Kubernetes API at {self._url} cannot be reached, or broke off: "
                f"{type(exc).__name__}: {exc}"
            ) from exc

    async def _renew_token(self) -> None:
        now_seconds = self._clock.monotonic_seconds()
        if now_seconds < self._token_until_seconds:
            return
        loop = asyncio.get_running_loop()
        header = await loop.run_in_executor(self._files, _authorization, self._access)
        if header is not None:
            self._objects.api_client.configuration.api_key["BearerToken"] = header
        self._token_until_seconds = now_seconds + TOKEN_KEPT_SECONDS


@contextlib.asynccontextmanager
async def opened(
    access: kube_access.Access | kube_config.Access, clock: monotonic_clock.MonotonicClock
) -> AsyncIterator[KubeApi]:
    """An API server to speak to, until the end of the block.

    Raises:
        ConfigurationError: the CA file, or the kubeconfig, cannot be used.
    """
    files = futures.ThreadPoolExecutor(1, thread_name_prefix="kube-files")
    try:
        loop = asyncio.get_running_loop()
        made = await loop.run_in_executor(files, _client, access)
        async with made:
            yield KubeApi(
                access, objects=kube_client.CustomObjectsApi(made), files=files, clock=clock
            )
    finally:
        # A file system that hangs must not hold the loop.
        files.shutdown(wait=False, cancel_futures=True)


def _abort(response: aiohttp.ClientResponse) -> None:
    """Cut off an answer that is left before its end. TLS's farewell takes as long as the server
    likes, and nobody waits for it: the connection would outlive its session, and the loop."""
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()


def _authorization(access: kube_access.Access | kube_config.Access) -> str | None:
    if isinstance(access, kube_config.Access):
        return kube_config.authorization(access)
    return f"Bearer {kube_access.token_of(access)}"


def _client(access: kube_access.Access | kube_config.Access) -> Any:
    if isinstance(access, kube_config.Access):
        return _AnyGroupClient(kube_config.configuration_of(access))
    configuration = kube_client.Configuration(host=access.url, ssl_ca_cert=str(access.ca_file))
    try:
        return _AnyGroupClient(configuration)
    except OSError as exc:
        raise errors.ConfigurationError(
            f"the CA file {access.ca_file} of the Kubernetes API cannot be used: "
            f"{exc.strerror or exc}"
        ) from exc


class _AnyGroupClient(kube_client.ApiClient):  # type: ignore[misc]  # it has no types
    """The client, whose calls for custom objects reach those of the core, too."""

    async def param_serialize(self, **request: Any) -> Any:
        """Kinds of the core are under another root than all others."""
        if (request.get("path_params") or {}).get("group") == "":
            request["resource_path"] = request["resource_path"].replace("/apis/{group}/", "/api/")
        return await super().param_serialize(**request)


class _Status(msgspec.Struct, frozen=True):
    message: str = ""


class _Told(msgspec.Struct, frozen=True):
    """A line of a watch."""

    type: str
    object: dict[str, Any]


def _change(line: bytes, *, what: str) -> Change | None:
    """What a line tells; None if it is of a type that is not known.

    Raises:
        KubernetesApiError: it tells of an error, or is no line of a watch.
    """
    try:
        told = msgspec.json.decode(line, type=_Told)
        if told.type == "ERROR":
            status, said = told.object["code"], told.object.get("message", "")
            raise _refusal(status, {}, msgspec.json.encode(_Status(message=said)), what)
        if told.type not in _CHANGES:
            return None
        return Change(
            document=None if told.type == "BOOKMARK" else told.object,
            is_gone=told.type == "DELETED",
            version=told.object["metadata"]["resourceVersion"],
        )
    except (msgspec.DecodeError, KeyError, TypeError) as exc:
        raise errors.KubernetesApiError(
            f"{what}: the answer is none of a watch: look for a proxy in between"
        ) from exc


def _refusal(
    status: int, headers: Mapping[str, str], body: str | bytes, what: str
) -> errors.CouchestorError:
    """Our error for an answer that is none of success."""
    try:
        said = msgspec.json.decode(body, type=_Status).message
    except msgspec.DecodeError:
        said = body.decode(errors="replace") if isinstance(body, bytes) else body
    said = " ".join(said.split())[:500]
    if status == 409:
        return errors.VersionConflictError(
            f"{what}: somebody else was first: read it again ({said})"
        )
    hints = {
        401: ": the token is not valid",
        403: ": let the ClusterRole of the operator allow it",
        404: ": not there; is its definition installed?",
        410: ": that version is too old",
    }
    return errors.KubernetesApiError(
        f"{what} was refused with {status}{hints.get(status, '')} ({said})",
        retry_after_seconds=_retry_after_seconds(headers),
        status=status,
    )


def _retry_after_seconds(headers: Mapping[str, str]) -> float:
    value = headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else 1.0
