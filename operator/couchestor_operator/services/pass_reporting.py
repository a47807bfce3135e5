"""What passes decided, told in the log once: when it is not what the last pass decided."""

from __future__ import annotations

import logging

from couchestor_operator.services import tiering_loop, tiering_pass

_LOG = logging.getLogger(__name__)


class PassReporting:
    """An ``Audience`` that logs what is new, and passes all on to another one."""

    def __init__(self, inner: tiering_loop.Audience) -> None:
        self._inner = inner
        self._told: dict[str, str] = {}
        self._planned: frozenset[str] = frozenset()
        self._faults: frozenset[str] = frozenset()

    def passed(self, summary: tiering_pass.Summary, *, seconds: float) -> None:
        """One was made."""
        self._inner.passed(summary, seconds=seconds)
        self._tell_of_decisions(summary)
        planned = frozenset(summary.planned)
        for move in sorted(planned - self._planned):
            _LOG.info("%s would move: dry run", move)
        self._planned = planned
        faults = frozenset(fault.message for fault in summary.faults)
        if faults and faults != self._faults:
            _LOG.warning("nothing moves where this is missing: %s", "; ".join(sorted(faults)))
        elif self._faults and not faults:
            _LOG.info("all that decisions need is known again")
        self._faults = faults

    def missed(self, *, seconds: float) -> None:
        """One could not be made; why was logged where it was seen."""
        self._inner.missed(seconds=seconds)

    def _tell_of_decisions(self, summary: tiering_pass.Summary) -> None:
        by_policy: dict[str, dict[str, int]] = {}
        for (policy_name, what), count in summary.decisions.items():
            by_policy.setdefault(policy_name, {})[what] = count
        told = {
            name: ", ".join(f"{what}: {count}" for what, count in sorted(counts.items()))
            for name, counts in by_policy.items()
        }
        for name, words in sorted(told.items()):
            if self._told.get(name) != words:
                _LOG.info("policy %s decided: %s", name, words, extra={"policy": name})
        self._told = told
