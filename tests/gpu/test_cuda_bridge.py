"""PEFT's methods on an accelerator."""

import pytest
import torch

from adapterkit import Base
from adapterkit.testing import ROWS, tiny_llama, tiny_tokenizer
from tests.plugins.bridge_cases import OPTIONS, WORKING, name_of
from tests.support import make_adapter, state_digest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("peft_type", WORKING)
def test_it_trains_and_answers_as_on_a_cpu(peft_type):
    ids = torch.randint(1, 97, (4, 9), generator=torch.Generator().manual_seed(7))
    base = Base(tiny_llama().cuda(), tokenizer=tiny_tokenizer())
    before = state_digest(base.model)
    adapter = base.train(list(ROWS), method=name_of(peft_type), max_steps=3, **OPTIONS.get(peft_type, {}))
    mixed = base.logits(ids.cuda(), adapter=[None, adapter, make_adapter(base, rank=4), adapter])
    torch.testing.assert_close(mixed[1:2], base.logits(ids[1:2].cuda(), adapter=adapter), atol=1e-4, rtol=1e-4)
    on_cpu = Base(tiny_llama()).logits(ids[:1], adapter=adapter)
    torch.testing.assert_close(base.logits(ids[:1].cuda(), adapter=adapter).cpu(), on_cpu, atol=1e-3, rtol=1e-3)
    assert state_digest(base.model) == before
