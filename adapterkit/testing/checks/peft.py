"""PEFT: what is saved for it is what it reads."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from adapterkit.testing.comparing import require_close
from adapterkit.testing.models import tiny_llama
from adapterkit.testing.outcomes import DoesNotApply, require
from adapterkit.testing.subject import need
from adapterkit.testing.words import some_ids

if TYPE_CHECKING:
    from adapterkit.testing.subject import Subject

__all__ = ["peft_reads_what_is_saved"]


def peft_reads_what_is_saved(subject: Subject) -> None:
    """Stock PEFT loads the folder with no key missing and none left over, and answers the same.

    That is how other engines and libraries load it. PEFT puts virtual tokens before the sequence and gives logits for them too: the
    last ones are compared.
    """
    if subject.method.to_peft(subject.config(subject.base())) is None:
        raise DoesNotApply("the method has no PEFT form: to_peft gives None")
    need("peft")
    import peft

    base, ids, adapter = subject.base(plain=True), some_ids(), subject.adapter()
    folder = adapter.save(subject.folder / "adapter", registry=subject.registry)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = peft.PeftModel.from_pretrained(tiny_llama(), folder).eval()
    lost = [str(one.message) for one in said if "missing" in str(one.message) or "unexpected" in str(one.message)]
    require(not lost, f"PEFT says: {lost[0] if lost else ''}")
    if not model.active_peft_config.is_prompt_learning:  # PEFT then says so of the prompt that it has just taken
        left = peft.set_peft_model_state_dict(model, peft.load_peft_weights(str(folder))).unexpected_keys
        require(not left, f"PEFT has no place for {', '.join(left[:3])}")
    with torch.no_grad():
        theirs = model(ids).logits[:, -ids.shape[1] :]
    require_close(theirs, base.logits(ids, adapter=adapter), "PEFT answers otherwise with the saved adapter")
