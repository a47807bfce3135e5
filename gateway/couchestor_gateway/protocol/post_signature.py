"""Who signed a form's policy: version 4, or version 2, which people still write forms by.

Either way the signature is over the policy as the form's field holds it. Version 2 is as strong as
HMAC-SHA1 still is, and covers the same document; it is always taken here, where the policy says
what may be done and until when, and elsewhere only where the node is told to (``sigv2``).

Source: AWS S3 API reference, "Calculating a Signature" of browser-based uploads; Amazon S3
Developer Guide, API version 2006-03-01, "Browser-Based Uploads Using POST (AWS Signature
Version 2)".
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from typing import Final

from couchestor_gateway.ports import credentials as credential_port
from couchestor_gateway.protocol import s3_error, sigv4_claim, sigv4_signatures

_VERSION_4: Final = {
    "x-amz-algorithm": "X-Amz-Algorithm",
    "x-amz-credential": "X-Amz-Credential",
    "x-amz-date": "X-Amz-Date",
    "x-amz-signature": "X-Amz-Signature",
}
_VERSION_2: Final = {"awsaccesskeyid": "AWSAccessKeyId", "signature": "Signature"}

FIELDS: Final = frozenset((*_VERSION_4, *_VERSION_2))
"""Names of the fields that hold signatures, in lower case."""


def signer(
    fields: Mapping[str, str], *, signatures: sigv4_signatures.Signatures, region: str
) -> credential_port.Credential | None:
    """Whose policy the form's is; None for a form without policy and signature, which may come into
    a bucket that everybody may write to.

    Args:
        fields: Values by field name in lower case.
        region: The only region accepted in a credential's scope.

    Raises:
        S3Error: InvalidArgument for a form that lacks a field or whose fields are malformed,
            InvalidAccessKeyId, SignatureDoesNotMatch.
    """
    given = FIELDS & fields.keys()
    if "policy" not in fields:
        if not given:
            return None
        raise missing("policy")
    if given <= _VERSION_2.keys():
        _require(fields, _VERSION_2)
        return _version_2(fields, signatures)
    if not given <= _VERSION_4.keys():
        raise s3_error.make(
            "InvalidArgument",
            "Only one auth mechanism allowed: the form has fields of signature version 4 and of"
            " version 2.",
            ArgumentName=_VERSION_2[min(given & _VERSION_2.keys())],
        )
    _require(fields, _VERSION_4)
    return _version_4(fields, signatures, region)


def missing(name: str) -> s3_error.S3Error:
    """The refusal of a form that lacks a field before its file."""
    return s3_error.make(
        "InvalidArgument",
        f"Bucket POST must contain a field named '{name}'.  If it is specified, please check the"
        " order of the fields.",
        ArgumentName=name,
        ArgumentValue="",
    )


def _require(fields: Mapping[str, str], names: Mapping[str, str]) -> None:
    for name, shown in names.items():
        if not fields.get(name):
            raise missing(shown)


def _version_2(
    fields: Mapping[str, str], signatures: sigv4_signatures.Signatures
) -> credential_port.Credential:
    access_key, policy = fields["awsaccesskeyid"], fields["policy"]
    credential = signatures.credential(access_key)
    expected = base64.b64encode(
        hmac.digest(credential.secret_key.encode(), policy.encode(), "sha1")
    )
    if not hmac.compare_digest(expected, fields["signature"].encode()):
        raise _wrong(access_key, policy, fields["signature"])
    return credential


def _version_4(
    fields: Mapping[str, str], signatures: sigv4_signatures.Signatures, region: str
) -> credential_port.Credential:
    algorithm, amz_date = fields["x-amz-algorithm"], fields["x-amz-date"]
    if algorithm != sigv4_claim.ALGORITHM:
        raise _argument(
            "X-Amz-Algorithm", algorithm, f'X-Amz-Algorithm only supports "{sigv4_claim.ALGORITHM}"'
        )
    claim = sigv4_claim.of_form(fields["x-amz-credential"])
    if claim.region != region:
        raise _argument(
            "X-Amz-Credential",
            fields["x-amz-credential"],
            f"The region '{claim.region[:64]}' in X-Amz-Credential is wrong; expecting '{region}'",
        )
    if signatures.seconds(amz_date) is None or amz_date[:8] != claim.date:
        raise _argument(
            "X-Amz-Date",
            amz_date,
            "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\" and of the"
            " credential's day",
        )
    credential = signatures.credential(claim.access_key)
    key = signatures.signing_key(credential, claim)
    policy, signature = fields["policy"], fields["x-amz-signature"]
    if not sigv4_signatures.is_signature(key, policy, signature.encode()):
        raise _wrong(claim.access_key, policy, signature)
    return credential


def _argument(name: str, value: str, message: str) -> s3_error.S3Error:
    return s3_error.make("InvalidArgument", message, ArgumentName=name, ArgumentValue=value[:256])


def _wrong(access_key: str, policy: str, signature: str) -> s3_error.S3Error:
    return s3_error.make(
        "SignatureDoesNotMatch",
        AWSAccessKeyId=access_key,
        StringToSign=policy,
        SignatureProvided=signature,
    )
