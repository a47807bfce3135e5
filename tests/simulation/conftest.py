"""Lets the modules here import each other by name."""

from __future__ import annotations

import pathlib
import sys

_ROOT = pathlib.Path(__file__).resolve().parents[2]
for _folder in (_ROOT, *(_ROOT / name for name in ("domain", "daemon", "gateway"))):
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))
