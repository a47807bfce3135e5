"""``python -m couchestor_operator.app.write_crds FOLDER``: one file per resource definition."""

from __future__ import annotations

import pathlib
import sys

from couchestor_operator.resources import definition


def write(folder: pathlib.Path) -> None:
    """Write every definition into ``folder``, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in definition.KINDS:
        (folder / f"{kind.plural}.yaml").write_bytes(definition.manifest(kind))


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]))
