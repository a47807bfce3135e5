"""Secrets sealed with AES-256-GCM under one of several master keys.

    sealed:  nonce (12 bytes) | ciphertext | tag (16 bytes)

What a secret belongs to is authenticated with it, so that one that is copied to another record does
not open there.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

from cryptography import exceptions
from cryptography.hazmat.primitives.ciphers import aead

from couchestor_domain import errors

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class MasterKeys:
    """The master keys of a node.

    Args:
        keys: Id -> 32 bytes.
        active_id: Which one seals.
        source: Where they stand, for what a person is told.
    """

    def __init__(self, keys: Mapping[str, bytes], active_id: str, *, source: str) -> None:
        assert active_id in keys, active_id
        self._keys = {key_id: aead.AESGCM(key) for key_id, key in keys.items()}
        self.active_id = active_id
        self.source = source

    def __repr__(self) -> str:
        return f"MasterKeys({sorted(self._keys)}, active {self.active_id})"

    @property
    def other_ids(self) -> frozenset[str]:
        """Those that only open."""
        return frozenset(self._keys) - {self.active_id}

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._keys

    def seal(self, secret: str, belongs_to: str) -> bytes:
        """Seal under the active key."""
        # Random nonces: a key seals far fewer secrets than the 2**32 that are safe so.
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._keys[self.active_id].encrypt(
            nonce, secret.encode(), belongs_to.encode()
        )

    def open(self, sealed: bytes, key_id: str, belongs_to: str) -> str:
        """The secret.

        Raises:
            MasterKeyError: the key is not there, or this is not what was sealed for that.
        """
        key = self._keys.get(key_id)
        if key is None:
            raise errors.MasterKeyError(
                f"a secret is sealed with the master key {key_id}, which is not in {self.source}:"
                " put the file back that held it, or remove the access key and make another"
            )
        try:
            return key.decrypt(
                sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], belongs_to.encode()
            ).decode()
        except (exceptions.InvalidTag, ValueError) as exc:
            raise errors.MasterKeyError(
                f"a secret does not open with the master key {key_id} in {self.source}: remove the"
                " access key and make another; `couchestor check` says what else is damaged"
            ) from exc
