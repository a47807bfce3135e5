"""What a header can hold, for values that become headers without having been one."""

from __future__ import annotations

import string
from typing import Final

TOKEN_CHARACTERS: Final = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
"""Of a header's name, and of other tokens (RFC 9110, 5.6.2)."""


def is_name(text: str) -> bool:
    """Whether it can be a header's name."""
    return bool(text) and not text.strip(TOKEN_CHARACTERS)


def is_value(text: str) -> bool:
    """Whether it can be a header's value: a line break in one would split an answer."""
    return not any(character < " " or character == "\x7f" for character in text)
