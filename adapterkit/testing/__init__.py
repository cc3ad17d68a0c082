"""For authors of plugins: a kit that holds a method to its contract, and the tiny models that it is tried on.

pytest is needed for :func:`conformance` alone.
"""

from .checks import CHECKS, Check
from .decorator import conformance
from .models import tiny_gpt2, tiny_llama, tiny_moe, tiny_qwen
from .outcomes import CheckFailed, DoesNotApply, Result
from .running import run
from .words import ROWS, tiny_tokenizer

__all__ = [
    "CHECKS",
    "ROWS",
    "Check",
    "CheckFailed",
    "DoesNotApply",
    "Result",
    "conformance",
    "run",
    "tiny_gpt2",
    "tiny_llama",
    "tiny_moe",
    "tiny_qwen",
    "tiny_tokenizer",
]
