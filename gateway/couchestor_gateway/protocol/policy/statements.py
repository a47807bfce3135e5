"""One statement of a policy: whom it allows or denies what, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from couchestor_domain import access
from couchestor_gateway.protocol.policy import (
    actions,
    condition_keys,
    conditions,
    evaluation,
    policy_json,
    principals,
    wildcards,
)

RESOURCE_PREFIX: Final = "arn:aws:s3:::"
_EFFECTS: Final = {"Allow": True, "Deny": False}
_MEMBERS: Final = frozenset(
    {
        *("Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction"),
        *("Resource", "NotResource", "Condition"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A statement that has been read."""

    allows: bool
    principals: principals.Principals
    but_principals: bool
    """Whether it speaks of everybody but the principals."""
    actions: frozenset[str]
    resources: evaluation.Texts
    but_resources: bool
    conditions: Sequence[conditions.Condition]

    def speaks_of(
        self,
        caller: access.Caller,
        resource: str,
        question: evaluation.Evaluation,
        member: str = "",
    ) -> bool:
        """Whether it says something about a request for one of its actions.

        Args:
            resource: ``bucket`` or ``bucket/key``.
            member: As for ``Principals.include``.

        Raises:
            UndecidedError
        """
        return (
            self.principals.include(caller, member) is not self.but_principals
            and self.resources.match(resource, question) is not self.but_resources
            and all(condition.holds(question) for condition in self.conditions)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a policy is read for."""

    bucket: str | None
    """Whose policy it is; None: a user's, which speaks of that user and may speak of any bucket."""
    variables: bool
    """Whether ``${...}`` stands for something, as from version 2012-10-17 on."""
    is_user: principals.IsUser | None
    """As for ``principals.parse``."""


def parse(value: policy_json.Value, setting: Setting) -> Statement:
    """A statement, checked in the order in which S3 names faults.

    Raises:
        S3Error: MalformedPolicy.
    """
    if not isinstance(value, Mapping):
        raise policy_json.malformed("Invalid policy syntax.")
    for name in value:
        if name not in _MEMBERS:
            raise policy_json.malformed(f"Unknown field {name[:64]}")
    if not isinstance(value.get("Sid", ""), str):
        raise policy_json.malformed("Invalid policy syntax.")
    allows = _effect(value)
    who, but_principals = _who(value, setting)
    if but_principals and allows:
        raise policy_json.malformed("Allow with NotPrincipal is not allowed.")
    done, but_actions = _either(value, "Action")
    reached = actions.named(policy_json.texts(done))
    if not reached or not all(reached):
        raise policy_json.malformed("Policy has invalid action")
    meant = frozenset[str]().union(*reached)
    if but_actions:
        meant = frozenset(actions.KINDS) - meant
    where, but_resources = _either(value, "Resource")
    texts = policy_json.texts(where)
    if not texts:
        raise policy_json.malformed("Policy has invalid resource")
    resources = [_resource(text, setting) for text in texts]
    found: list[conditions.Condition] = []
    if "Condition" in value:
        found = conditions.parse(value["Condition"], of=meant, variables=setting.variables)
    if not but_actions:
        for names in reached:
            for condition in found:
                if not condition_keys.applies_to_any(condition.key, names):
                    raise conditions.inapplicable()
        # One that allows nothing shows at its first use; one that was to deny something does not.
        if (
            not allows
            and setting.bucket is not None
            and not but_resources
            and not all(_reaches(names, texts) for names in reached)
        ):
            raise policy_json.malformed("Action does not apply to any resource(s) in statement")
    return Statement(
        allows=allows,
        principals=who,
        but_principals=but_principals,
        actions=meant,
        resources=evaluation.Texts(resources),
        but_resources=but_resources,
        conditions=tuple(found),
    )


def _who(
    members: Mapping[str, policy_json.Value], setting: Setting
) -> tuple[principals.Principals, bool]:
    """Whom it speaks of, and whether of everybody else."""
    if setting.bucket is None:
        if "Principal" in members or "NotPrincipal" in members:
            raise policy_json.malformed("Policy document should not specify a principal.")
        return principals.Principals(True, frozenset()), False
    named, but_principals = _either(members, "Principal")
    return principals.parse(named, is_user=setting.is_user), but_principals


def _effect(members: Mapping[str, policy_json.Value]) -> bool:
    if "Effect" not in members:
        raise policy_json.malformed("Missing required field Effect")
    effect = members["Effect"]
    if not isinstance(effect, str) or effect not in _EFFECTS:
        raise policy_json.malformed(f"Invalid effect: {str(effect)[:64]}")
    return _EFFECTS[effect]


def _either(members: Mapping[str, policy_json.Value], name: str) -> tuple[policy_json.Value, bool]:
    """An element or its opposite, and whether it was the opposite."""
    opposite = f"Not{name}"
    if name in members and opposite in members:
        raise policy_json.malformed("Invalid policy syntax.")
    if name in members:
        return members[name], False
    if opposite in members:
        return members[opposite], True
    raise policy_json.malformed(f"Missing required field {name}")


def _resource(text: str, setting: Setting) -> evaluation.Template:
    """What follows the prefix of an ARN, if it can be the bucket or something in it."""
    if text == "*":
        return (wildcards.Wild.ANY,)
    path = text.removeprefix(RESOURCE_PREFIX)
    bucket = path.partition("/")[0]
    if path == text or not bucket:
        raise policy_json.malformed("Policy has invalid resource")
    is_filled_in = setting.variables and "${" in bucket
    if (
        setting.bucket is not None
        and not is_filled_in
        and not wildcards.Patterns((wildcards.pieces(bucket),)).match(setting.bucket)
    ):
        raise policy_json.malformed("Policy has invalid resource")
    return evaluation.template(path, variables=setting.variables, wild=True)


def _reaches(names: frozenset[str], resources: Sequence[str]) -> bool:
    """Whether some of the actions are actions on what some of the resources name."""
    kinds = {actions.KINDS[name] for name in names}
    on_object = any("/" in text or "*" in text or "${" in text for text in resources)
    on_bucket = any("/" not in text for text in resources)
    return (actions.Kind.OBJECT in kinds and on_object) or (
        actions.Kind.BUCKET in kinds and on_bucket
    )
