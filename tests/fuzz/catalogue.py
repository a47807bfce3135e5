"""Every target, by its name with dashes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.fuzz import (
    body_targets,
    document_targets,
    name_targets,
    policy_targets,
    record_targets,
    signature_targets,
    target,
)

_ALL: Final = (
    *signature_targets.TARGETS,
    *body_targets.TARGETS,
    *document_targets.TARGETS,
    *policy_targets.TARGETS,
    *name_targets.TARGETS,
    *record_targets.TARGETS,
)
TARGETS: Final[Mapping[str, target.Target]] = {each.name.replace(" ", "-"): each for each in _ALL}
assert len(TARGETS) == len(_ALL), "two targets have one name"
