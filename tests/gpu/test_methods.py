"""Every kind of method on an accelerator: trained there, mixed in one batch, and nothing of the base changed."""

import pytest
import torch

from adapterkit import Base, UnknownNameError
from tests.support import EXAMPLE_BASE, state_digest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
ROWS = [{"prompt": f"say {n}", "completion": word} for n, word in enumerate(["one", "two", "three"] * 8)]
METHODS = {
    "lora": {"rank": 4},
    "qlora": {"rank": 4},
    "prompt_tuning": {"tokens": 5},
    "p_tuning": {"tokens": 3},
    "prefix_tuning": {"tokens": 4},
    "full": {"learning_rate": 1e-3},
    "peft:ia3": {"learning_rate": 1e-2},
    "peft:vera": {"learning_rate": 1e-2},
    "peft:oft": {"learning_rate": 1e-3},
}


@pytest.fixture(scope="module")
def trained():
    base = Base(EXAMPLE_BASE, dtype="float32")
    before = state_digest(base.model)
    adapters = {}
    for method, options in METHODS.items():
        try:
            adapters[method] = base.train(ROWS, method=method, max_steps=6, batch_size=8, **options)
        except UnknownNameError:
            pytest.skip(f"{method} is not installed")
    assert state_digest(base.model) == before
    return base, adapters


def test_each_lowers_the_loss(trained):
    base, adapters = trained
    bare = base.evaluate(ROWS, adapter=None)["loss"]
    for method, adapter in adapters.items():
        assert base.evaluate(ROWS, adapter=adapter, compare=False)["loss"] < bare, method


def test_all_mix_in_one_batch(trained):
    base, adapters = trained
    chosen = [*adapters.values(), None]
    ids = torch.randint(4, 8000, (len(chosen), 9), generator=torch.Generator().manual_seed(0)).cuda()
    mixed = base.logits(ids, adapter=chosen)
    for row, adapter in enumerate(chosen):
        solo = base.logits(ids[row : row + 1], adapter=adapter)
        torch.testing.assert_close(mixed[row : row + 1], solo, atol=2e-4, rtol=1e-4)
    prompts = ["say 3"] * len(chosen)
    answers = base.generate(prompts, adapter=chosen, max_new_tokens=4)
    assert answers == [base.generate("say 3", adapter=adapter, max_new_tokens=4) for adapter in chosen]
