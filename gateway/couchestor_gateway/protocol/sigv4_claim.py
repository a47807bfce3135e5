"""What a request claims about its signature, parsed and judged before anything is computed."""

from __future__ import annotations

from typing import Final, NamedTuple

from couchestor_gateway.protocol import s3_error

ALGORITHM: Final = "AWS4-HMAC-SHA256"
EXPIRES_SECONDS_MAX: Final = 7 * 24 * 3600
SKEW_SECONDS_MAX: Final = 15 * 60
"""How far a client's clock may be off."""


class Claim(NamedTuple):
    """What an Authorization header or a presigned query says, still unverified."""

    access_key: str
    date: str
    region: str
    scope: str
    signed: tuple[str, ...]
    signed_text: str


def version_2_refused() -> s3_error.S3Error:
    """The refusal of Signature Version 2."""
    return s3_error.make(
        "InvalidRequest",
        f"The authorization mechanism you have provided is not supported. Please use {ALGORITHM}; "
        "the AWS CLI and boto3 do so for URLs too once s3.signature_version is s3v4.",
    )


def _malformed(detail: str) -> s3_error.S3Error:
    return s3_error.make(
        "AuthorizationHeaderMalformed", f"The authorization header is malformed; {detail}"
    )


def reordered(authorization: str) -> tuple[str, str]:
    """An Authorization header whose fields come in another order: prefix and signature."""
    scheme, _, rest = authorization.partition(" ")
    fields = [item.strip() for item in rest.split(",")]
    signatures = [item for item in fields if item.startswith("Signature=")]
    if scheme == ALGORITHM and len(signatures) != 1:
        raise _malformed('the authorization component "Signature=..." is missing or repeated.')
    others = ",".join(item for item in fields if not item.startswith("Signature="))
    return f"{scheme} {others}", signatures[0].removeprefix("Signature=") if signatures else ""


def of_authorization(prefix: str) -> Claim:
    """What an Authorization header without its signature claims."""
    scheme, _, rest = prefix.partition(" ")
    if scheme != ALGORITHM:
        if scheme == "AWS":
            raise version_2_refused()
        raise s3_error.make("AccessDenied", "Unsupported Authorization Type")
    fields: dict[str, str] = {}
    for item in rest.split(","):
        name, separator, value = item.strip().partition("=")
        if not name and not separator:
            continue
        if not separator or name in fields:
            raise _malformed("every component must be name=value and appear once.")
        fields[name] = value
    for name in ("Credential", "SignedHeaders"):
        if not fields.get(name):
            raise _malformed(f'the authorization component "{name}=..." is missing.')
    return of_fields(fields["Credential"], fields["SignedHeaders"], "AuthorizationHeaderMalformed")


def of_fields(credential: str, signed_headers: str, code: str) -> Claim:
    """A claim from its credential scope and its signed headers; ``code`` names the refusal."""
    access_key, date, region = _scope(credential, code)
    signed = tuple(signed_headers.lower().split(";"))
    if not all(signed):
        raise s3_error.make(code, "SignedHeaders holds an empty name.")
    return Claim(
        access_key, date, region, f"{date}/{region}/s3/aws4_request", signed, signed_headers
    )


def of_form(credential: str) -> Claim:
    """The claim of a form, which signs no headers.

    Raises:
        S3Error: InvalidArgument.
    """
    access_key, date, region = _scope(credential, "InvalidArgument")
    return Claim(access_key, date, region, f"{date}/{region}/s3/aws4_request", (), "")


def _scope(credential: str, code: str) -> tuple[str, str, str]:
    """Access key, date and region."""
    # An access key may hold slashes, so the scope is counted from the end.
    parts = credential.rsplit("/", 4)
    if len(parts) != 5 or not parts[0]:
        raise s3_error.make(
            code,
            "The Credential is mal-formed; expecting"
            ' "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".',
        )
    access_key, date, region, service, terminal = parts
    if service != "s3" or terminal != "aws4_request":
        raise s3_error.make(
            code,
            "The Credential is mal-formed; the service must be s3 and the terminal aws4_request.",
        )
    if len(date) != 8 or not date.isascii() or not date.isdigit():
        raise s3_error.make(
            code, f'The Credential is mal-formed; invalid credential date "{date[:32]}".'
        )
    return access_key, date, region


def require_signed(claim: Claim, values: dict[str, str], amz_names: list[str]) -> None:
    """Refuse a request whose host or any x-amz- header is not signed."""
    signed = claim.signed
    missing = [name for name in amz_names if name not in signed]
    if "host" not in signed or "host" not in values:
        missing.append("host")
    if missing:
        raise s3_error.make(
            "AccessDenied",
            "There were headers present in the request which were not signed",
            HeadersNotSigned=", ".join(missing),
        )


def expires_seconds(text: str) -> int:
    """Lifetime of a presigned request; one of 0 has always ended."""
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise s3_error.make(
            "AuthorizationQueryParametersError", "X-Amz-Expires should be a non-negative number"
        )
    expires = int(text)
    if expires > EXPIRES_SECONDS_MAX:
        raise s3_error.make(
            "AuthorizationQueryParametersError",
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires"
            f" must be less than {EXPIRES_SECONDS_MAX} seconds",
        )
    return expires
