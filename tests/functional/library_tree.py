"""Real files for clients to carry: parts of the standard library, and files that are awkward."""

from __future__ import annotations

import pathlib
import random
import shutil
import sysconfig
from collections.abc import Sequence

_SKIPPED = shutil.ignore_patterns("__pycache__", "site-packages", "*.so", "*.a")
_MIB = 1024 * 1024


def copy(target: pathlib.Path, *, packages: Sequence[str] | None, large_mib: int) -> pathlib.Path:
    """Real files, some of them empty, in nested folders, one of them in parts for most clients.

    Args:
        target: The folder to make.
        packages: Which packages of the standard library, as far as this Python has them; None:
            all of it.
        large_mib: ``large.bin`` is one byte longer than this.
    """
    library = pathlib.Path(sysconfig.get_path("stdlib"))
    if packages is None:
        shutil.copytree(library, target, ignore=_SKIPPED)
        for folder in sorted(target.rglob("*"), reverse=True):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()  # S3 keeps objects, so an empty folder cannot come back.
    else:
        for name in packages:
            if (library / name).is_dir():
                shutil.copytree(library / name, target / name, ignore=_SKIPPED)
    (target / "with space + plus & é.txt").write_bytes(b"")
    dice = random.Random(7)
    with (target / "large.bin").open("wb") as file:
        for _ in range(large_mib):
            file.write(dice.randbytes(_MIB))
        file.write(b"!")
    return target
