"""Calls of Mayastor's REST API v0, and its refusals as our errors. Nothing is repeated in here."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import urllib.parse
from collections.abc import AsyncIterator
from typing import Final, TypeVar

import aiohttp
import msgspec

from couchestor_domain import errors, units
from couchestor_operator.adapters import (
    bounded_body,
    http_session,
    mayastor_access,
)
from couchestor_operator.resources import mayastor_answers

PAGE_ENTRIES_COUNT: Final = 500
COMPLAINT_BYTES_MAX: Final = 64 * units.KIB
COMPLAINT_LENGTH_MAX: Final = 300

_ABSENT: Final = "NotFound"
"""A proxy that knows no such path says 404, too, and must not make a volume be gone."""
_FULL: Final = ("ResourceExhausted", "CapacityLimitExceeded")
_FOR_GOOD: Final = ("InvalidArgument", "OutOfRange", "Unimplemented", "NotAcceptable")

T = TypeVar("T")


class MayastorApi:
    """Asks one Mayastor, each time anew. Use ``opened``, which closes its connections at the end.

    Every method raises ``MayastorApiError`` where there was no answer, or one of an error that may
    pass.
    """

    def __init__(self, access: mayastor_access.Access, session: http_session.HttpSession) -> None:
        self._access = access
        self._session = session
        self._where = f"Mayastor at {access.url}"

    async def nodes(self) -> list[mayastor_answers.Node]:
        """Every storage node."""
        return await self._all("/nodes", list[mayastor_answers.Node])

    async def pools(self) -> list[mayastor_answers.Pool]:
        """Every pool."""
        return await self._all("/pools", list[mayastor_answers.Pool])

    async def volumes(self) -> list[mayastor_answers.Volume]:
        """Every volume, page by page."""
        found: list[mayastor_answers.Volume] = []
        token = 0
        while True:
            page = await self._all(
                f"/volumes?max_entries={PAGE_ENTRIES_COUNT}&starting_token={token}",
                mayastor_answers.Volumes,
            )
            found += page.entries
            if page.next_token is None:
                return found
            if page.next_token <= token:
                raise errors.MayastorApiError(
                    f"{self._where} answered pages of volumes that do not go on: look at its log"
                )
            token = page.next_token

    async def node(self, name: str) -> mayastor_answers.Node | None:
        """A node; None if there is no such."""
        return await self._one("/nodes/", name, mayastor_answers.Node)

    async def pool(self, name: str) -> mayastor_answers.Pool | None:
        """A pool; None if there is no such."""
        return await self._one("/pools/", name, mayastor_answers.Pool)

    async def volume(self, name: str) -> mayastor_answers.Volume | None:
        """A volume; None if there is no such."""
        return await self._one("/volumes/", name, mayastor_answers.Volume)

    async def set_replica_count(self, volume_name: str, count: int) -> None:
        """Have so many replicas, where the manager likes.

        Raises:
            VersionConflictError: there is no such volume; nothing was done.
            NoSuitablePoolError: there is no room for one more; nothing was done.
            MigrationFailedError: refused for good; nothing was done.
        """
        name = urllib.parse.quote(volume_name, safe="")
        path = f"/volumes/{name}/replica_count/{count}"
        status, body = await self._call("PUT", path)
        if status == 200:
            return
        complaint = _complaint(body)
        said = _said(complaint)
        what = f"{count} replicas of volume {volume_name}"
        if status == 404 and complaint.kind == _ABSENT:
            raise errors.VersionConflictError(
                f"volume {volume_name} is gone: look at it again", volume=volume_name
            )
        if complaint.kind in _FULL:
            raise errors.NoSuitablePoolError(
                f"{self._where} has no room for {what} ({said})", volume=volume_name
            )
        if complaint.kind in _FOR_GOOD:
            raise errors.MigrationFailedError(
                f"{self._where} refuses {what} ({status}: {said})", volume=volume_name
            )
        raise self._refusal("PUT", path, status, said)

    async def _all(self, path: str, model: type[T]) -> T:
        status, body = await self._call("GET", path)
        if status != 200:
            raise self._refusal("GET", path, status, _said(_complaint(body)))
        return mayastor_answers.decoded(body, model, where=self._where)

    async def _one(self, path: str, name: str, model: type[T]) -> T | None:
        path += urllib.parse.quote(name, safe="")
        status, body = await self._call("GET", path)
        if status == 200:
            return mayastor_answers.decoded(body, model, where=self._where)
        complaint = _complaint(body)
        if status == 404 and complaint.kind == _ABSENT:
            return None
        raise self._refusal("GET", path, status, _said(complaint))

    async def _call(self, method: str, path: str) -> tuple[int, bytearray]:
        """Status and body of an answer."""
        try:
            async with asyncio.timeout(self._access.deadline_seconds):
                return await self._send(method, path)
        except TimeoutError as exc:
            raise errors.MayastorApiError(
                f"{self._where} did not answer within {self._access.deadline_seconds:g} s: look at "
                "its load"
            ) from exc
        except (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError) as exc:
            raise errors.MayastorApiError(
                f"{self._where} shows a certificate that is not trusted: give the CA file that "
                f"signed it ({_plain(str(exc))})"
            ) from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise errors.MayastorApiError(
                f"{self._where} cannot be reached, or broke off: {type(exc).__name__}: "
                f"{_plain(str(exc))}"
            ) from exc

    async def _send(self, method: str, path: str) -> tuple[int, bytearray]:
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip"}
        secret = await self._session.authorization(self._access)
        if secret is not None:
            headers["Authorization"] = secret
        async with self._session.client.request(
            method, self._access.root_url + path, headers=headers, allow_redirects=False
        ) as response:
            bytes_max = (
                self._access.answer_bytes_max if response.status == 200 else COMPLAINT_BYTES_MAX
            )
            body = await bounded_body.read(
                response, bytes_max, where=self._where, unfit=errors.MayastorApiError
            )
            return response.status, body

    def _refusal(self, method: str, path: str, status: int, said: str) -> errors.MayastorApiError:
        hint = ""
        if status in (401, 403):
            hint = ": give the token of someone who may"
        elif status == 404:
            hint = ": set the URL that its API v0 is under"
        elif 300 <= status < 400:
            hint = ": it sends elsewhere, which is not followed; set the URL of the API itself"
        path = path.partition("?")[0]
        return errors.MayastorApiError(
            f"{self._where} refused {method} {mayastor_access.ROOT}{path} with {status}{hint} "
            f"({said})",
            status=status,
        )


@contextlib.asynccontextmanager
async def opened(access: mayastor_access.Access) -> AsyncIterator[MayastorApi]:
    """A Mayastor to ask, until the end of the block.

    Raises:
        ConfigurationError: a certificate file cannot be used.
    """
    async with http_session.opened(access, connections_count=8) as session:
        yield MayastorApi(access, session)


def _complaint(body: bytes | bytearray) -> mayastor_answers.Complaint:
    """What an answer complains of; of no kind where it says nothing of the sort."""
    try:
        return msgspec.json.decode(body, type=mayastor_answers.Complaint)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return mayastor_answers.Complaint(kind="")


def _said(complaint: mayastor_answers.Complaint) -> str:
    words = filter(None, (complaint.kind, complaint.message or complaint.details))
    return _plain(": ".join(words)) or "it does not say why"


def _plain(text: str) -> str:
    """Someone else's text, fit for one line of a log."""
    shown = "".join(char if char.isprintable() else " " for char in text[:COMPLAINT_LENGTH_MAX])
    return " ".join(shown.split())
