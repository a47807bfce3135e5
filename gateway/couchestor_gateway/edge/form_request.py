"""A form as an S3 request: who signed it, whether that allows it, its fields as headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from couchestor_gateway.edge import addressing, form_body, request_body
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.protocol import (
    digests,
    post_fields,
    post_policy,
    post_signature,
    request_identity,
    s3_error,
    sigv4_signatures,
    tags,
    xml_reading,
)


@dataclass(slots=True, kw_only=True)
class AcceptedForm:
    """A form whose fields are allowed, or signed by nobody; its file has not been read."""

    body: form_body.FormBody
    target: addressing.Target
    """With the key that the form names."""
    fields: Mapping[str, str]
    """By name in lower case."""
    headers: Mapping[str, str]
    """Those that the fields stand for, names in lower case."""
    identity: request_identity.Identity
    policy: post_policy.Policy | None
    """None: nobody signed one."""
    access_key: str
    """Of the policy's signer; empty if there is none."""


async def accept(
    body: form_body.FormBody,
    target: addressing.Target,
    *,
    signatures: sigv4_signatures.Signatures,
    region: str,
    now_ns: int,
) -> AcceptedForm:
    """Read a form's fields and judge them.

    Args:
        target: What the request addresses: a bucket.
        region: The only region accepted in a signature's scope.
        now_ns: Wall clock, since the Unix epoch.

    Raises:
        S3Error: as ``FormBody.read_fields``, ``post_signature.signer``, ``post_policy.parse``,
            ``Policy.check`` and the functions of ``post_fields``.
    """
    parser = await body.read_fields()
    fields = post_fields.by_name(parser.fields)
    credential = post_signature.signer(fields, signatures=signatures, region=region)
    policy = None if credential is None else post_policy.parse(fields["policy"])
    key = post_fields.key_of(fields, parser.filename)
    if policy is not None:
        policy.check({**fields, "key": key, "bucket": target.bucket}, now_ns=now_ns)
    return AcceptedForm(
        body=body,
        target=target._replace(key=key),
        fields=fields,
        headers=post_fields.headers_of(fields),
        identity=request_identity.Identity(
            credential=credential,
            payload=request_identity.PayloadKind.UNSIGNED,
            amz_date=fields.get("x-amz-date", ""),
        ),
        policy=policy,
        access_key="" if credential is None else credential.access_key,
    )


class FormRequest(s3_request.S3Request):
    """The request that an accepted form is. ``options`` are those of ``S3Request``."""

    __slots__ = ("_form", "fields")

    def __init__(self, raw: web.BaseRequest, form: AcceptedForm, **options: Any) -> None:
        super().__init__(
            raw,
            target=form.target,
            headers=form.headers,
            amz_names=form.headers.keys(),
            identity=form.identity,
            **options,
        )
        self._form = form
        self._body = form.body
        self.fields = form.fields
        """By name in lower case."""

    def written_tags(self) -> Mapping[str, str]:
        """The tags that the form gives its file, as a document or as the header of a PUT does.

        Raises:
            S3Error: InvalidArgument, InvalidTag, MalformedXML.
        """
        document, header = self.fields.get("tagging"), self.fields.get("x-amz-tagging")
        if not document:
            return tags.of_header(header)
        if header:
            raise s3_error.make(
                "InvalidArgument",
                "Tags may be given in one field only, tagging or x-amz-tagging.",
                ArgumentName="tagging",
            )
        pairs = xml_reading.tagging(document.encode(), tags_max=tags.OBJECT_TAGS_MAX)
        return tags.checked(pairs, count_max=tags.OBJECT_TAGS_MAX)

    def auth_type(self) -> str:
        """See ``RequestHead``."""
        return "POST"

    def signature_version(self) -> str:
        """See ``RequestHead``."""
        return "AWS" if "awsaccesskeyid" in self.fields else super().signature_version()

    async def body(self, *, algorithms: tuple[str, ...] = ()) -> request_body.RequestBody:
        """The file as a BodySource.

        Args:
            algorithms: Checksums to compute even if the client gives none.

        Raises:
            S3Error: EntityTooLarge, EntityTooSmall, InvalidDigest and the like for bad digests.
        """
        digester = digests.BodyDigester.from_headers(
            self.headers,
            self.identity,
            algorithms=algorithms,
            shared_md5=self.shared_md5(self._services.body_bytes_max),
        )
        policy, body = self._form.policy, self._form.body
        body.begin(
            digester,
            size_bytes_min=0 if policy is None else policy.size_bytes_min,
            size_bytes_max=None if policy is None else policy.size_bytes_max,
        )
        return body
