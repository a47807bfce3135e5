"""Where an HTTP API is, and how it is spoken to: address, credentials, certificates, bounds."""

from __future__ import annotations

import base64
import pathlib
import ssl
import urllib.parse
from dataclasses import dataclass, field
from typing import ClassVar, Final

from couchestor_domain import errors, units

TOKEN_BYTES_MAX: Final = 64 * units.KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How to reach one server. Neither its text nor any error shows a credential.

    A subclass says which service it is of, for what people are told.

    Raises:
        ConfigurationError: the parts do not fit together.
    """

    SERVICE: ClassVar[str]
    EXAMPLE: ClassVar[str]
    """A URL that could be one of it."""
    UNAVAILABLE: ClassVar[type[errors.ControlPlaneError]]
    """What is raised while it cannot be spoken to."""

    url: str
    """Scheme, host and the path that its API is under, if any."""
    bearer_token: str | None = field(default=None, repr=False)
    bearer_token_file: pathlib.Path | None = None
    """Read again for each call: tokens that Kubernetes mounts are replaced while in use."""
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    ca_file: pathlib.Path | None = None
    """Trusted instead of the system's authorities."""
    client_certificate_file: pathlib.Path | None = None
    client_key_file: pathlib.Path | None = None
    insecure: bool = False
    """Whether any certificate is taken: for trials."""
    deadline_seconds: float = 30.0
    """For one call, from connecting to the last byte."""
    answer_bytes_max: int = 32 * units.MIB

    def __post_init__(self) -> None:
        self._check_url()
        ways = (self.bearer_token, self.bearer_token_file, self.username)
        if sum(way is not None for way in ways) > 1:
            raise errors.ConfigurationError(
                f"give {self.SERVICE} one of a bearer token, a bearer token file and a user name"
            )
        if (self.username is None) != (self.password is None):
            raise errors.ConfigurationError(
                f"basic authentication at {self.SERVICE} needs a user name and a password"
            )
        if self.username is not None and ":" in self.username:
            raise errors.ConfigurationError(f"a user name at {self.SERVICE} cannot contain a colon")
        if self.bearer_token is not None:
            _checked_token(self.bearer_token, source=f"the bearer token for {self.SERVICE}")
        if (self.client_certificate_file is None) != (self.client_key_file is None):
            raise errors.ConfigurationError(
                f"a client certificate for {self.SERVICE} needs its key file, and a key its"
                " certificate"
            )
        certificates = (self.ca_file, self.client_certificate_file)
        if not self.is_encrypted and (self.insecure or any(certificates)):
            raise errors.ConfigurationError(
                f"certificates are given for {self.SERVICE}, but its URL says http: write https"
            )
        if self.deadline_seconds <= 0 or self.answer_bytes_max <= 0:
            raise errors.ConfigurationError(
                f"the deadline and the size limit of calls to {self.SERVICE} must be above 0"
            )

    @property
    def is_encrypted(self) -> bool:
        """Whether it is spoken to over TLS."""
        return self.url.lower().startswith("https:")

    def _check_url(self) -> None:
        # The URL itself is not shown: it may be the one with a password in it.
        try:
            parts = urllib.parse.urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise errors.ConfigurationError(
                f"the {self.SERVICE} URL is not one: write http or https, a host and a port, such"
                f" as {self.EXAMPLE}"
            )
        if "@" in parts.netloc:
            raise errors.ConfigurationError(
                f"the {self.SERVICE} URL carries credentials, which would show in logs: give them"
                " by the settings for a user name and password, or a token"
            )
        if parts.query or parts.fragment:
            raise errors.ConfigurationError(
                f"the {self.SERVICE} URL must end with the path that the API is under: leave out"
                " what follows '?' or '#'"
            )


def authorization(access: Access) -> str | None:
    """The value of the Authorization header, None without credentials. Reads the token file.

    Raises:
        ControlPlaneError: (``UNAVAILABLE``) the token file cannot be read, or holds no token. It
            may be there later.
    """
    if access.username is not None:
        pair = f"{access.username}:{access.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"
    if access.bearer_token is not None:
        return f"Bearer {access.bearer_token}"
    path = access.bearer_token_file
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            token = file.read(TOKEN_BYTES_MAX).decode("ascii").strip()
        return f"Bearer {_checked_token(token, source=str(path))}"
    except (OSError, UnicodeDecodeError, errors.ConfigurationError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it holds no token"
        # Not chained: the decoding error shows what it could not decode.
        raise access.UNAVAILABLE(
            f"the bearer token file {path} for {access.SERVICE} cannot be used: {why}"
        ) from None


def ssl_context(access: Access) -> ssl.SSLContext | None:
    """What certificates are checked against; None for plain HTTP. Reads the files.

    Raises:
        ConfigurationError: a file is missing or holds something else.
    """
    if not access.is_encrypted:
        return None
    ca_file = access.ca_file
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as exc:
        raise errors.ConfigurationError(
            f"the CA file {ca_file} for {access.SERVICE} cannot be used: {exc.strerror or exc}"
        ) from exc
    if access.client_certificate_file is not None:
        try:
            # An empty password: a key that needs one is refused, not asked for at a terminal.
            context.load_cert_chain(
                access.client_certificate_file, access.client_key_file, password=""
            )
        except (OSError, ValueError) as exc:
            raise errors.ConfigurationError(
                f"the client certificate {access.client_certificate_file} for {access.SERVICE} and"
                f" its key {access.client_key_file} cannot be used: {exc}"
            ) from exc
    if access.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _checked_token(token: str, *, source: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise errors.ConfigurationError(f"{source} is not a token: it must be one printable word")
    return token
