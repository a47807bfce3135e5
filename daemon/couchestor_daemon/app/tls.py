"""TLS for the S3 port: a context whose certificate is exchanged in place, without a restart."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import ssl
import weakref
from typing import Final

from couchestor_domain import errors

POLL_SECONDS: Final = 5.0

_log = logging.getLogger("couchestor.tls")
# Weak, so that a context lives as long as its server. SIGHUP reaches every one of the process.
_live: weakref.WeakSet[ReloadingCertificate] = weakref.WeakSet()

Stamp = tuple[tuple[int, int, int], ...]


class ReloadingCertificate:
    """A server context and the files it came from.

    New connections use the newest good certificate; running ones keep theirs. Files that do not
    load leave the old certificate in force.

    Raises:
        ConfigurationError: the first certificate does not load.
    """

    def __init__(self, *, cert: pathlib.Path, key: pathlib.Path) -> None:
        self._cert = cert
        self._key = key
        self.context = _new_context()
        self._stamp = self._stamp_now()
        try:
            self.context.load_cert_chain(cert, key, password=_no_password)
        except (OSError, ValueError) as exc:
            raise errors.ConfigurationError(
                f"cannot serve TLS with {cert} and {key}: {self._reason(exc)}"
            ) from exc
        _live.add(self)

    def reload(self) -> bool:
        """Load the files again. Returns False, and logs why, when the old ones are kept."""
        self._stamp = self._stamp_now()
        try:
            # Tried on a spare first: a failed load could leave a new chain with an old key.
            _new_context().load_cert_chain(self._cert, self._key, password=_no_password)
            self.context.load_cert_chain(self._cert, self._key, password=_no_password)
        except (OSError, ValueError) as exc:
            _log.error(
                "new TLS certificate refused, the old one stays",
                extra={"cert": str(self._cert), "reason": self._reason(exc)},
            )
            return False
        _log.info("TLS certificate loaded", extra={"cert": str(self._cert)})
        return True

    def reload_if_changed(self) -> bool:
        """Load the files again when either has changed since the last look."""
        return self._stamp_now() != self._stamp and self.reload()

    async def watch(self, *, poll_seconds: float = POLL_SECONDS) -> None:
        """Follow the files until cancelled. Two stats and a small read: short enough inline."""
        while True:
            await asyncio.sleep(poll_seconds)
            self.reload_if_changed()

    def _reason(self, exc: Exception) -> str:
        """Why the files do not load, for a person: OpenSSL names a line of its own source."""
        if isinstance(exc, ssl.SSLError):
            if exc.reason == "KEY_VALUES_MISMATCH":
                return "the key does not belong to the certificate"
            if not _holds(self._cert, b"-----BEGIN CERTIFICATE-----"):
                return f"{self._cert} holds no certificate in PEM"
            if not _holds(self._key, b"PRIVATE KEY-----"):
                return f"{self._key} holds no private key in PEM"
            return "one of them is damaged" + (f" ({exc.reason})" if exc.reason else "")
        return (exc.strerror or str(exc)) if isinstance(exc, OSError) else str(exc)

    def _stamp_now(self) -> Stamp:
        stamps = []
        for path in (self._cert, self._key):
            try:
                status = path.stat()
                stamps.append((status.st_mtime_ns, status.st_ino, status.st_size))
            except OSError:
                stamps.append((0, 0, 0))
        return tuple(stamps)


def reload_all() -> None:
    """Reload every certificate in use in this process (SIGHUP)."""
    for certificate in list(_live):
        certificate.reload()


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_password() -> str:
    # Without this OpenSSL would ask on the terminal and the daemon would hang.
    raise ValueError("the private key is encrypted; give one without a passphrase")


def _holds(path: pathlib.Path, mark: bytes) -> bool:
    try:
        return mark in path.read_bytes()
    except OSError:
        return False
