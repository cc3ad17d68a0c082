"""How adapters act on a base: actions at sites, plans, and the hooks that ask the plan in force."""

from .actions import Action, Plan, uniform_plan
from .composing import compose
from .effects import actions_for, check_effect
from .rows import MOST_MASKED_RANK, RowPlan, room, row_plan
from .runtime import Runtime, take_over
from .sizes import plan_bytes, plan_tensors
from .stacking import PAGE, Slots, Stacks, runs_of
from .tokens import InputAction, prefix_count

__all__ = [
    "MOST_MASKED_RANK",
    "PAGE",
    "Action",
    "InputAction",
    "Plan",
    "RowPlan",
    "Runtime",
    "Slots",
    "Stacks",
    "actions_for",
    "check_effect",
    "compose",
    "plan_bytes",
    "plan_tensors",
    "prefix_count",
    "room",
    "row_plan",
    "runs_of",
    "take_over",
    "uniform_plan",
]
