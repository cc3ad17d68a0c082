"""How good adapters are: losses, scores of answers, intervals and comparisons."""

from .scoring import EvaluateOptions, Evaluation, evaluate

__all__ = ["EvaluateOptions", "Evaluation", "evaluate"]
