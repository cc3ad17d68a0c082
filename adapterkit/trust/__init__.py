"""Which adapters are let in: from which sources, signed by whom."""

from .policy import VARIABLE, Policy, Rule, current_policy
from .reading import Admission, check_trusted, read_trusted
from .signing import sign, verify

__all__ = [
    "VARIABLE",
    "Admission",
    "Policy",
    "Rule",
    "check_trusted",
    "current_policy",
    "read_trusted",
    "sign",
    "verify",
]
