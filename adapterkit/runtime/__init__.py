"""How adapters act on a base: actions at sites, plans, and the hooks that ask the plan in force."""

from .actions import Action, Plan, uniform_plan
from .composing import compose
from .effects import actions_for, check_effect
from .rows import RowPlan, room, row_plan
from .runtime import Runtime, take_over
from .tokens import InputAction, prefix_count

__all__ = [
    "Action",
    "InputAction",
    "Plan",
    "RowPlan",
    "Runtime",
    "actions_for",
    "check_effect",
    "compose",
    "prefix_count",
    "room",
    "row_plan",
    "take_over",
    "uniform_plan",
]
