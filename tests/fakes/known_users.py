"""A credential store of users without keys."""

from __future__ import annotations

from couchestor_gateway.ports import credentials


class KnownUsers:
    """Users by id; the e-mail address of each is the id at example.com."""

    def __init__(self, *user_ids: str) -> None:
        self._users = {
            user_id: credentials.User(
                user_id=user_id, display_name=user_id.title(), email=f"{user_id}@example.com"
            )
            for user_id in user_ids
        }

    def find(self, access_key: str) -> credentials.Credential | None:
        return None

    def user(self, user_id: str) -> credentials.User | None:
        return self._users.get(user_id)

    def user_by_email(self, email: str) -> credentials.User | None:
        return self._users.get(email.removesuffix("@example.com"))

    def is_principal(self, name: str) -> bool:
        return name in self._users
