"""The domain is the standard library's pure part and itself, nothing else."""

from __future__ import annotations

import ast
import pathlib
import sys
from collections.abc import Iterator

import couchestor_domain

IMPURE = {"asyncio", "io", "logging", "mmap", "os", "pathlib", "random", "secrets", "socket"} | {
    "subprocess",
    "threading",
    "time",
}
"""Standard library modules that read a clock, a file, a socket, or chance."""


def imported_modules(path: pathlib.Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            yield (node.module or "").partition(".")[0]


def test_the_domain_imports_only_itself_and_the_pure_standard_library() -> None:
    sources = sorted(pathlib.Path(couchestor_domain.__path__[0]).rglob("*.py"))
    assert len(sources) > 5
    for path in sources:
        for module in imported_modules(path):
            assert module == "couchestor_domain" or module in sys.stdlib_module_names, (
                f"{path.name} imports third-party {module}"
            )
            assert module not in IMPURE, f"{path.name} imports impure {module}"
