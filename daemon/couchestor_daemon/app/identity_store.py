"""Everybody who may sign requests: root, the users of a file, and tenants' users in the index.

What is in the index is kept decoded and opened while its generation stays: a request of a tenant's
user costs one small read of the index, and one of root or a user of the file none.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable
from typing import Final

from couchestor_daemon.adapters import secret_sealing
from couchestor_daemon.app import master_key_file, users_file
from couchestor_daemon.formats import identity_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import identities
from couchestor_domain import errors, units
from couchestor_gateway.ports import credentials

KEPT_MAX: Final = 4_096
"""Access keys kept ready; unknown ones are not."""
KEPT_CHARACTERS_MAX: Final = 16 * units.MIB
"""Of the policies of their users."""

Limiter = Callable[[identity_records.StoredRate, identity_records.StoredRate], credentials.Admit]
"""What admits the requests of a user, by the rate of the tenant and of the user."""


def belongs_to(tenant_id: str, user: str, access_key: str) -> str:
    """What a secret is sealed for: its place."""
    return f"{tenant_id}\0{user}\0{access_key}"


def principal(tenant_id: str, user: str) -> str:
    """How policies name a user of a tenant."""
    return f"{tenant_id}:user/{user}"


class Identities:
    """Satisfies the gateway's ``CredentialStore``.

    Args:
        named: Root and the users of the file, who are looked for first.
        path: File of the master keys.
        limiter: None: no rate is limited.
    """

    def __init__(
        self,
        named: users_file.Users,
        index: index_port.IndexStore,
        path: pathlib.Path,
        *,
        limiter: Limiter | None = None,
    ) -> None:
        self._named = named
        self._index = index
        self._path = path
        self._limiter = limiter
        self._master: secret_sealing.MasterKeys | None = None
        self._generation: bytes | None = None
        self._kept: dict[str, credentials.Credential] = {}
        self._kept_characters = 0

    def find(self, access_key: str) -> credentials.Credential | None:
        """See ``CredentialStore``. Raises MasterKeyError."""
        return self._named.find(access_key) or self._stored(access_key)

    def user(self, user_id: str) -> credentials.User | None:
        """See ``CredentialStore``."""
        found = self._named.user(user_id)
        if found is not None or not user_id.isascii():
            return found
        with self._index.read() as reader:
            tenant = identities.find_tenant(reader, user_id)
        return (
            None if tenant is None else credentials.User(user_id=user_id, display_name=tenant.name)
        )

    def user_by_email(self, email: str) -> credentials.User | None:
        """See ``CredentialStore``."""
        return self._named.user_by_email(email)

    def is_principal(self, name: str) -> bool:
        """See ``CredentialStore``."""
        tenant_id, separator, user = name.partition(":user/")
        if not separator:
            return self.user(name) is not None
        if not name.isascii():
            return False
        with self._index.read() as reader, contextlib.suppress(errors.NoSuchIdentityError):
            identities.find_user(reader, tenant_id, user)
            return True
        return False

    def is_named(self, user_id: str) -> bool:
        """Whether an id is root's or in the users file, as it is now."""
        self._named.reload_if_changed()
        return self._named.user(user_id) is not None

    def master_keys(self) -> secret_sealing.MasterKeys:
        """Those of the file as it is now. Raises ConfigurationError."""
        try:
            self._master = master_key_file.load(self._path)
        except FileNotFoundError as exc:
            raise errors.ConfigurationError(
                f"{self._path} is gone: put it back, or restart the node, which makes a new one"
            ) from exc
        return self._master

    def refuse_conflicts(self, known: users_file.Known) -> None:
        """Stop a file that names somebody who is in the index. Raises ConfigurationError."""
        with self._index.read() as reader:
            if identities.generation(reader) is None:
                return
            for user_id in known.by_id:
                if identities.find_tenant(reader, user_id) is not None:
                    raise errors.ConfigurationError(
                        f"the id {user_id} of the users file is a tenant's of this node: take it"
                        " out of the file"
                    )
            for access_key in known.by_access_key:
                key = identities.find_key(reader, access_key)
                if key is not None:
                    raise errors.ConfigurationError(
                        f"the access key {access_key} of root or the users file is that of user"
                        f" {key.user} of tenant {key.tenant_id}, too: take one of them out"
                    )

    def _stored(self, access_key: str) -> credentials.Credential | None:
        if not access_key.isascii():
            return None
        with self._index.read() as reader:
            generation = identities.generation(reader)
            if generation != self._generation:
                self._forget()
                self._generation = generation
            if generation is None:
                return None
            kept = self._kept.get(access_key)
            if kept is not None:
                return kept
            holder = identities.holder(reader, access_key)
        if holder is None or not holder.key.is_active:
            return None
        made = self._opened(access_key, holder)
        policies = () if made.member is None else made.member.policies
        self._kept_characters += sum(map(len, policies))
        if len(self._kept) >= KEPT_MAX or self._kept_characters > KEPT_CHARACTERS_MAX:
            # Emptying is simpler than evicting and costs one miss per live entry.
            self._forget()
        self._kept[access_key] = made
        return made

    def _forget(self) -> None:
        self._kept.clear()
        self._kept_characters = 0

    def _opened(self, access_key: str, holder: identities.KeyHolder) -> credentials.Credential:
        key, tenant, user = holder
        master = self._master
        if master is None or key.master_key_id not in master:
            master = self._reloaded()
        secret = master.open(
            key.sealed_secret, key.master_key_id, belongs_to(key.tenant_id, key.user, access_key)
        )
        is_limited = tenant.rate is not None or user.rate is not None
        return credentials.Credential(
            access_key=access_key,
            secret_key=secret,
            owner=key.tenant_id,
            display_name=tenant.name,
            member=None
            if user.is_root
            else credentials.Member(
                name=key.user,
                principal=principal(key.tenant_id, key.user),
                policies=tuple(user.policies.values()),
            ),
            admit=self._limiter(tenant.rate, user.rate)
            if is_limited and self._limiter is not None
            else None,
        )

    def _reloaded(self) -> secret_sealing.MasterKeys:
        try:
            return self.master_keys()
        except errors.ConfigurationError as exc:
            raise errors.MasterKeyError(exc.message) from exc
