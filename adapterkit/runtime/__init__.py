"""How adapters act on a base: actions at sites, plans, and the hooks that ask the plan in force."""

from .actions import Action, Plan, row_plan, uniform_plan
from .runtime import Runtime, take_over

__all__ = ["Action", "Plan", "Runtime", "row_plan", "take_over", "uniform_plan"]
