"""What a request says of the keys that conditions of a policy ask for.

Nothing is looked up before it is asked for. A header counts as operations take it, whose reading
of it a policy is to judge: an empty one is none. One that comes twice where one is asked for is not
taken for either: the request is denied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from couchestor_domain import objects, units
from couchestor_gateway.edge import copy_header, request_head
from couchestor_gateway.protocol import acl_headers, lock_headers, operation_needs, timestamps
from couchestor_gateway.protocol.policy import evaluation, principals

_NS_PER_DAY: Final = 86_400 * units.NS_PER_SECOND


class RequestFacts:
    """Facts about one request to one bucket.

    Args:
        bucket: The one that is asked about, which may be a copy's source; None: there is none yet.
        record: The version that is asked about, once it is known.
        version_id: The one that is asked for by name.
        prefix: In place of the one in the query.
        tags: Those in the body, in place of those in headers.
        lock: What the body asks for, as headers would, in place of headers.
        if_match: The condition in the body, in place of the header; empty: none.
    """

    __slots__ = (
        "_bucket",
        "_head",
        "_if_match",
        "_lock",
        "_prefix",
        "_record",
        "_tags",
        "_version_id",
    )

    def __init__(
        self,
        head: request_head.RequestHead,
        bucket: objects.BucketRecord | None,
        *,
        record: objects.ObjectRecord | None = None,
        version_id: str | None = None,
        prefix: str | None = None,
        tags: Mapping[str, str] | None = None,
        lock: Mapping[str, str] | None = None,
        if_match: str | None = None,
    ) -> None:
        self._head = head
        self._bucket = bucket
        self._record = record
        self._version_id = version_id
        self._prefix = prefix
        self._tags = tags
        self._lock = lock
        self._if_match = if_match

    def values(self, key: str) -> Sequence[str] | None:
        """See ``evaluation.Facts``. Raises S3Error for headers that are malformed."""
        name, slash, parameter = key.partition("/")
        if slash:
            tagged = self._tags_of(name)
            value = tagged.get(parameter)
        elif name == "s3:requestobjecttagkeys":
            return tuple(self._written_tags()) or None
        elif name in _READERS:
            value = _READERS[name](self)
        elif name.startswith("s3:x-amz-"):
            value = self._header(name.removeprefix("s3:"))
        else:
            return None
        return None if value is None else (value,)

    def _header(self, name: str) -> str | None:
        if self._lock is not None and name.startswith(lock_headers.PREFIX):
            return self._lock.get(name)
        value = _only(self._head.headers, name)
        return acl_headers.bare(value) if value and name in acl_headers.NAMES else value

    def _tags_of(self, name: str) -> Mapping[str, str]:
        if name == "s3:existingobjecttag":
            return objects.EMPTY_MAP if self._record is None else self._record.tags
        return self._written_tags() if name == "s3:requestobjecttag" else objects.EMPTY_MAP

    def _written_tags(self) -> Mapping[str, str]:
        return self._head.written_tags() if self._tags is None else self._tags

    # -- keys ------------------------------------------------------------------------------------

    def _source_ip(self) -> str | None:
        return self._head.source_ip()

    def _is_secure(self) -> str:
        return "true" if self._head.raw.secure else "false"

    def _tls_version(self) -> str | None:
        transport = self._head.raw.transport
        tls = None if transport is None else transport.get_extra_info("ssl_object")
        version = None if tls is None else tls.version()
        return version.removeprefix("TLSv") if version else None

    def _principal_arn(self) -> str | None:
        caller, member = self._head.caller, self._head.member
        if member is not None:
            return principals.arn_of(member.principal)
        return None if caller is None else principals.arn_of(caller)

    def _principal_type(self) -> str:
        if self._head.member is not None:
            return "User"
        return "Anonymous" if self._head.caller is None else "Account"

    def _user_name(self) -> str | None:
        member = self._head.member
        return self._head.caller if member is None else member.name

    def _user_id(self) -> str:
        member = self._head.member
        return (self._head.caller if member is None else member.principal) or "anonymous"

    def _resource_account(self) -> str | None:
        return None if self._bucket is None else self._bucket.owner

    def _signature_version(self) -> str | None:
        return None if self._head.caller is None else self._head.signature_version()

    def _auth_type(self) -> str | None:
        return None if self._head.caller is None else self._head.auth_type()

    def _signature_age(self) -> str | None:
        """In milliseconds."""
        signed = timestamps.parse_amz_date(self._head.identity.amz_date)
        if signed is None:
            return None
        return str(self._head.now_ns() // 1_000_000 - signed * 1_000)

    def _content_sha256(self) -> str | None:
        if self._head.caller is None:
            return None
        return _only(self._head.raw.headers, "x-amz-content-sha256") or "UNSIGNED-PAYLOAD"

    def _copy_source(self) -> str | None:
        text = self._header(copy_header.NAME)
        if not text:
            return None
        source = copy_header.parse(text)
        return f"{source.bucket}/{source.key}"

    def _metadata_directive(self) -> str | None:
        directive = self._header("x-amz-metadata-directive")
        return None if directive is None else directive.upper()

    def _prefix_asked(self) -> str | None:
        return self._head.query.get("prefix") if self._prefix is None else self._prefix

    def _etag_asked(self) -> str | None:
        return self._header("if-match") if self._if_match is None else self._if_match or None

    def _remaining_days(self) -> str | None:
        until_ns = timestamps.parse_iso8601(self._header(lock_headers.UNTIL) or "")
        if until_ns is None:
            return None
        return str(math.ceil((until_ns - self._head.now_ns()) / _NS_PER_DAY))

    def _creates_object(self) -> str:
        query = self._head.query
        return "false" if "partNumber" in query or "uploads" in query else "true"


def asks_for(head: request_head.RequestHead, what: operation_needs.Asked) -> bool:
    """Whether a request asks for something beside its operation. Raises S3Error as ``tags``."""
    match what:
        case operation_needs.Asked.ACL:
            return acl_headers.is_given(head.headers, head.amz_names)
        case operation_needs.Asked.TAGS:
            return bool(head.written_tags())
        case operation_needs.Asked.RETENTION:
            names = (lock_headers.MODE, lock_headers.UNTIL)
            return any(head.headers.get(name) for name in names)
        case operation_needs.Asked.LEGAL_HOLD:
            return bool(head.headers.get(lock_headers.LEGAL_HOLD))
        case operation_needs.Asked.BYPASS:
            return head.headers.get(lock_headers.BYPASS, "").lower() == "true"


def _only(headers: Mapping[str, str], name: str) -> str | None:
    """The one value of a header; what operations would take of several is not for a policy to
    guess."""
    found = [value for each, value in headers.items() if each.lower() == name]
    if len(found) > 1:
        raise evaluation.UndecidedError(name)
    return (found[0].strip() or None) if found else None


_READERS: Final[Mapping[str, Callable[[RequestFacts], str | None]]] = MappingProxyType(
    {
        "aws:currenttime": lambda facts: timestamps.iso8601(facts._head.now_ns()),
        "aws:epochtime": lambda facts: str(facts._head.now_ns() // units.NS_PER_SECOND),
        "aws:principalaccount": lambda facts: facts._head.caller,
        "aws:principalarn": RequestFacts._principal_arn,
        "aws:principalisawsservice": lambda facts: "false",
        "aws:principaltype": RequestFacts._principal_type,
        "aws:referer": lambda facts: _only(facts._head.raw.headers, "referer"),
        "aws:requestedregion": lambda facts: facts._head.region,
        "aws:securetransport": RequestFacts._is_secure,
        "aws:sourceip": RequestFacts._source_ip,
        "aws:useragent": lambda facts: _only(facts._head.raw.headers, "user-agent"),
        "aws:userid": RequestFacts._user_id,
        "aws:username": RequestFacts._user_name,
        "aws:viaawsservice": lambda facts: "false",
        "s3:authtype": RequestFacts._auth_type,
        "s3:delimiter": lambda facts: facts._head.query.get("delimiter"),
        "s3:if-match": RequestFacts._etag_asked,
        "s3:if-none-match": lambda facts: facts._header("if-none-match"),
        "s3:max-keys": lambda facts: facts._head.query.get("max-keys") or None,
        "s3:object-lock-legal-hold": lambda facts: facts._header(lock_headers.LEGAL_HOLD),
        "s3:object-lock-mode": lambda facts: facts._header(lock_headers.MODE),
        "s3:object-lock-remaining-retention-days": RequestFacts._remaining_days,
        "s3:object-lock-retain-until-date": lambda facts: facts._header(lock_headers.UNTIL),
        "s3:objectcreationoperation": RequestFacts._creates_object,
        "s3:prefix": RequestFacts._prefix_asked,
        "s3:resourceaccount": RequestFacts._resource_account,
        "s3:signatureage": RequestFacts._signature_age,
        "s3:signatureversion": RequestFacts._signature_version,
        "s3:tlsversion": RequestFacts._tls_version,
        "s3:versionid": lambda facts: facts._version_id,
        "s3:x-amz-content-sha256": RequestFacts._content_sha256,
        "s3:x-amz-copy-source": RequestFacts._copy_source,
        "s3:x-amz-metadata-directive": RequestFacts._metadata_directive,
    }
)
"""Keys that are not the name of a header or a tag."""
