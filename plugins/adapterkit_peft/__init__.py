"""Every method of PEFT for causal language models, by PEFT's name: ``peft:vera``, ``peft:ia3``, ``peft:oft`` and so on.

PEFT's own layers are trained, and act, at adapterkit's sites; the base is never changed, and files are PEFT's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapterkit import Method

__all__ = ["adapterkit_methods"]


@hookimpl
def adapterkit_methods() -> Iterator[Method]:
    """A method for each PEFT type. PEFT itself is not imported before one of them is used, and need not be installed."""
    from .catalogue import KINDS, PROMPTS, REFUSED
    from .method import PeftMethod
    from .prompts import PeftPrompt
    from .refused import RefusedMethod

    yield from (PeftMethod.of(peft_type) for peft_type in KINDS)
    yield from (PeftPrompt.of(peft_type) for peft_type in PROMPTS)
    yield from (RefusedMethod.of(peft_type) for peft_type in REFUSED)
