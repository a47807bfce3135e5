"""What a request says before its body: who sent it, what it names, and what it is answered with."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from aiohttp import web

from couchestor_domain import access, objects
from couchestor_gateway.edge import addressing, copy_header
from couchestor_gateway.ports import clock as clock_port
from couchestor_gateway.ports import credentials as credential_port
from couchestor_gateway.ports import hashing, object_store, offloading
from couchestor_gateway.protocol import request_identity, s3_error, sigv2, sigv4_claim, tags


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What requests are answered with, the same for all of a gateway."""

    users: credential_port.CredentialStore
    buckets: object_store.BucketStore
    objects: object_store.ObjectStore
    uploads: object_store.UploadStore
    region: str
    host_id: str
    """Which gateway answers, as its answers tell."""
    notification_targets: frozenset[str]
    """Names of the targets that buckets may send notices to."""
    clock: clock_port.Clock
    offload: offloading.Offload
    """Where long buffers are hashed."""
    new_shared_md5: hashing.NewSharedMd5 | None = None
    """MD5 of long bodies, computed together; None: one by one, where the rest is hashed."""
    stall_seconds: float
    """Longest wait for the next byte of a body."""
    body_bytes_max: int


class RequestHead:
    """A request before its body. A plain slotted class: one is made per request."""

    __slots__ = (
        "_services",
        "amz_names",
        "bucket",
        "caller",
        "headers",
        "identity",
        "key",
        "query",
        "raw",
        "region",
        "users",
    )

    def __init__(
        self,
        raw: web.BaseRequest,
        *,
        target: addressing.Target,
        headers: Mapping[str, str],
        amz_names: Collection[str],
        query: Mapping[str, str],
        identity: request_identity.Identity,
        services: Services,
    ) -> None:
        self._services = services
        self.raw = raw
        self.bucket = target.bucket
        self.key = target.key
        self.query = query
        self.headers = headers
        """Case-insensitive."""
        self.amz_names = amz_names
        """Names of the headers that start with ``x-amz-``, and perhaps others; lower-case."""
        self.identity = identity
        credential = identity.credential
        self.caller: access.Caller = None if credential is None else credential.owner
        self.users = services.users
        self.region = services.region

    def written_tags(self) -> Mapping[str, str]:
        """The tags that the request's headers give what it writes.

        Raises:
            S3Error: InvalidArgument, InvalidTag.
        """
        headers = self.headers
        directive = headers.get("x-amz-tagging-directive", "").upper()
        if directive != "REPLACE" and copy_header.NAME in headers:
            # A copy has its source's tags unless it says otherwise.
            return objects.EMPTY_MAP
        return tags.of_header(headers.get("x-amz-tagging"))

    def auth_type(self) -> str:
        """How a signature came, as conditions of policies name it."""
        name = "Signature" if self.identity.is_version_2 else "X-Amz-Signature"
        return "REST-QUERY-STRING" if name in self.query else "REST-HEADER"

    def signature_version(self) -> str:
        """Which it is, as conditions of policies name it."""
        return sigv2.SCHEME if self.identity.is_version_2 else sigv4_claim.ALGORITHM

    def now_ns(self) -> int:
        """Wall clock, since the Unix epoch."""
        return self._services.clock.now_ns()

    def location(self) -> str:
        """The object's address as the client reached it."""
        raw = self.raw
        return f"{raw.scheme}://{raw.host}{raw.raw_path.partition('?')[0]}"

    def source_ip(self) -> str | None:
        """The address that the request came from, as IPv4 where it is one; None: unknown."""
        return address_of(self.raw)

    @property
    def host_id(self) -> str:
        """Which gateway answers, as its answers tell."""
        return self._services.host_id

    @property
    def notification_targets(self) -> frozenset[str]:
        """Names of the targets that buckets may send notices to."""
        return self._services.notification_targets

    def account(self) -> str:
        """Who signed the request. Raises S3Error: AccessDenied if nobody did."""
        if self.caller is None:
            raise s3_error.make("AccessDenied")
        return self.caller

    def display_name(self, user_id: str) -> str:
        """The name shown for a user: the id of one who is not here any more."""
        user = self.users.user(user_id)
        return user_id if user is None else user.display_name


def address_of(raw: web.BaseRequest) -> str | None:
    """The address that a request came from, as IPv4 where it is one; None: unknown."""
    remote = raw.remote
    if remote is None:
        return None
    try:
        address = ipaddress.ip_address(remote.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
