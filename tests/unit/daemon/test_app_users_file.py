"""Users beside root: the file's rules, and how it is followed."""

from __future__ import annotations

import pathlib

import pytest

from couchestor_daemon.app import credentials_file, users_file
from couchestor_domain import errors

ROOT = credentials_file.RootCredentials(access_key="ROOTKEY", secret_key="root-secret")
ADA = """
[[users]]
id = "ada$1"
display_name = "Ada L."
email = "Ada@example.com"
keys = [{ access_key = "ADAKEY", secret_key = "ada-secret" },
        { access_key = "ADAKEY2", secret_key = "ada-secret2" }]
"""
KEY = '{ access_key = "BOBKEY", secret_key = "bob-secret" }'


def _file(folder: pathlib.Path, text: str, *, mode: int = 0o600) -> pathlib.Path:
    path = folder / "users.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_root_alone() -> None:
    users = users_file.Users(ROOT, None)
    found = users.find("ROOTKEY")
    assert found is not None
    assert (found.owner, found.secret_key) == ("root", "root-secret")
    shown = users.user("root")
    assert shown is not None
    assert shown.display_name == "root"
    assert users.find("ADAKEY") is None
    assert users.user("ada$1") is None
    assert users.user_by_email("") is None
    assert users.reload()


def test_users_and_keys(tmp_path: pathlib.Path) -> None:
    users = users_file.Users(ROOT, _file(tmp_path, ADA + '[[users]]\nid = "gone"\n'))
    for key in ("ADAKEY", "ADAKEY2"):
        found = users.find(key)
        assert found is not None
        assert (found.owner, found.display_name) == ("ada$1", "Ada L.")
    assert users.find("ROOTKEY") is not None
    assert users.user_by_email("ada@EXAMPLE.com") == users.user("ada$1")
    gone = users.user("gone")
    assert gone is not None
    assert gone.display_name == "gone"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("users = 1", "[[users]]"),
        ("[[user]]\nid = 'x'", "[[users]]"),
        ("[[users]\n", "not TOML"),
        ("[[users]]\n", "id must be"),
        ("[[users]]\nid = 'a b'", "id must be"),
        (f"[[users]]\nid = '{'x' * 97}'", "id must be"),
        ("[[users]]\nid = 'x'\nname = 'y'", "nothing else"),
        ("[[users]]\nid = 'x'\ndisplay_name = 1", "display_name"),
        ('[[users]]\nid = "x"\nemail = "a\\u0001"', "email"),
        ("[[users]]\nid = 'root'", "the id root is taken"),
        (ADA + "[[users]]\nid = 'ada$1'", "user 2 in"),
        (ADA + "[[users]]\nid = 'bob'\nemail = 'ada@example.COM'", "e-mail address is taken"),
        (ADA + ADA.replace("ada$1", "bob").replace("email", "# email"), "ADAKEY is somebody's"),
        (ADA.replace("ADAKEY2", "ROOTKEY"), "ROOTKEY is somebody's"),
        ("[[users]]\nid = 'x'\nkeys = ['k']", "each key"),
        ("[[users]]\nid = 'x'\nkeys = [{ access_key = 'k' }]", "each key"),
        (f"[[users]]\nid = 'x'\nkeys = [{KEY.replace('bob-secret', 'short')}]", "secret key"),
        (f"[[users]]\nid = 'x'\nkeys = [{', '.join([KEY] * 17)}]", "16 at most"),
    ],
)
def test_refused(tmp_path: pathlib.Path, text: str, said: str) -> None:
    with pytest.raises(errors.ConfigurationError) as failure:
        users_file.Users(ROOT, _file(tmp_path, text))
    assert said in failure.value.message
    assert str(tmp_path) in failure.value.message
    assert "-secret" not in failure.value.message


def test_a_file_that_others_may_read_or_that_is_missing_is_refused(tmp_path: pathlib.Path) -> None:
    path = _file(tmp_path, ADA, mode=0o640)
    with pytest.raises(errors.ConfigurationError, match=f"run: chmod 600 {path}"):
        users_file.Users(ROOT, path)
    with pytest.raises(errors.ConfigurationError, match="does not exist: create it"):
        users_file.Users(ROOT, tmp_path / "none.toml")
    with pytest.raises(errors.ConfigurationError, match="is not a file"):
        users_file.Users(ROOT, tmp_path)


def test_it_is_followed_and_a_bad_one_changes_nothing(tmp_path: pathlib.Path) -> None:
    path = _file(tmp_path, ADA)
    users = users_file.Users(ROOT, path)
    assert not users.reload_if_changed()
    _file(tmp_path, f"[[users]]\nid = 'bob'\nkeys = [{KEY}]\n")
    assert users.reload_if_changed()
    assert users.find("ADAKEY") is None
    assert users.find("BOBKEY") is not None
    _file(tmp_path, "what")
    assert not users.reload_if_changed()
    assert not users.reload()
    assert users.find("BOBKEY") is not None
    path.unlink()
    assert not users.reload_if_changed()
    assert users.find("BOBKEY") is not None
