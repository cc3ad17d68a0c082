"""What a run will take, before it begins: memory, time and money by method, what would fit, and which way to go."""

from __future__ import annotations

from .advice import Advice, Recommendation, Situation, advise
from .devices import DEVICES, Device, find_device
from .memory import Memory
from .plan import Estimate, Plan, Rows
from .planner import plan

__all__ = [
    "DEVICES",
    "Advice",
    "Device",
    "Estimate",
    "Memory",
    "Plan",
    "Recommendation",
    "Rows",
    "Situation",
    "advise",
    "find_device",
    "plan",
]
