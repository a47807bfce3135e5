"""Lets the tests here import each other and the benchmark tools by name."""

from __future__ import annotations

import pathlib
import sys

_ROOT = pathlib.Path(__file__).resolve().parents[2]
for _folder in (_ROOT, *(_ROOT / name for name in ("domain", "daemon", "gateway", "bench"))):
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))
