"""Texts with wildcards: ``*`` for any characters, none too, and ``?`` for exactly one.

All patterns that are alternatives of each other are followed at once, as the states of one
automaton held in the bits of a number: each character of a text costs two ands, a shift and an or,
whatever the patterns are, and nothing is ever tried again. A pattern written to make a matcher try
everything costs what its length costs.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Final


class Wild(enum.Enum):
    """What stands for characters that are not written."""

    ANY = "*"
    """Any number of them."""
    ONE = "?"


Pattern = Sequence[str | Wild]
"""Pieces one after the other."""

_WILDS: Final = {wild.value: wild for wild in Wild}


def pieces(text: str) -> list[str | Wild]:
    """A text, its ``*`` and ``?`` taken for wildcards."""
    found: list[str | Wild] = []
    start = 0
    for at, character in enumerate(text):
        if character in _WILDS:
            if at > start:
                found.append(text[start:at])
            found.append(_WILDS[character])
            start = at + 1
    if start < len(text):
        found.append(text[start:])
    return found


class Automaton:
    """Patterns followed together.

    State i of a pattern means that its first i characters have been seen; the patterns' states
    stand one behind the other.
    """

    __slots__ = ("_accepting", "_anything", "_starts", "_staying", "ends")

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        accepting: dict[str, int] = {}
        ends: list[int] = []
        anything = staying = starts = at = 0
        for pattern in patterns:
            starts |= 1 << at
            for piece in pattern:
                if piece is Wild.ANY:
                    staying |= 1 << at
                elif isinstance(piece, Wild):
                    anything |= 1 << at
                    at += 1
                else:
                    for character in piece:
                        accepting[character] = accepting.get(character, 0) | 1 << at
                        at += 1
            ends.append(1 << at)
            at += 1
        self._starts = starts
        self._staying = staying
        self._anything = anything
        self._accepting = {name: bits | anything for name, bits in accepting.items()}
        self.ends = tuple(ends)
        """For each pattern its bit in what ``follow`` gives."""

    def follow(self, text: str) -> int:
        """The states after a text: the bit of each pattern that matches it, and others."""
        accepting, anything, staying = self._accepting, self._anything, self._staying
        states = self._starts
        for character in text:
            states = (states & accepting.get(character, anything)) << 1 | states & staying
            if not states:
                break
        return states


class Patterns:
    """Patterns of which any may match: texts and prefixes, nearly all there are, at once."""

    __slots__ = ("_automaton", "_ends", "_prefixes", "_texts")

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        texts: list[str] = []
        prefixes: list[str] = []
        others: list[Pattern] = []
        for pattern in patterns:
            match list(pattern):
                case []:
                    texts.append("")
                case [str(text)]:
                    texts.append(text)
                case [Wild.ANY]:
                    prefixes.append("")
                case [str(text), Wild.ANY]:
                    prefixes.append(text)
                case _:
                    others.append(pattern)
        self._texts = frozenset(texts)
        self._prefixes = tuple(prefixes)
        self._automaton = Automaton(others) if others else None
        self._ends = 0 if self._automaton is None else sum(self._automaton.ends)

    def match(self, text: str) -> bool:
        """Whether one of them matches the whole text."""
        if text in self._texts or text.startswith(self._prefixes):
            return True
        return self._automaton is not None and bool(self._automaton.follow(text) & self._ends)
