"""Which adapters are let in: from which sources, signed by whom."""

from .policy import Policy, Rule, current_policy
from .reading import check_model, read_trusted
from .signing import sign, verify

__all__ = ["Policy", "Rule", "check_model", "current_policy", "read_trusted", "sign", "verify"]
