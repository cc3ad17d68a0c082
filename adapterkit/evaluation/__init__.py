"""How good adapters are: losses, scores of answers with intervals, and comparisons."""

from .comparing import Comparison, Difference, compare
from .marks import Marked, Marks, read_marks, sum_up
from .result import Evaluation
from .scoring import EvaluateOptions, ScoreOptions, evaluate

__all__ = [
    "Comparison",
    "Difference",
    "EvaluateOptions",
    "Evaluation",
    "Marked",
    "Marks",
    "ScoreOptions",
    "compare",
    "evaluate",
    "read_marks",
    "sum_up",
]
