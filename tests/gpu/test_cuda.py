"""What only an accelerator shows: other threads in the backward pass, half precision, 4-bit layers, captured graphs."""

import pytest
import torch
from transformers import AutoTokenizer

from adapterkit import Base
from adapterkit.testing import tiny_llama
from tests.support import EXAMPLE_BASE, make_adapter, state_digest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
ROWS = [
    {"prompt": f"question {n} about {'cards ' * (n % 4)}", "completion": ("yes it is", "no")[n % 2]} for n in range(24)
]
OPTIONS = {"rank": 4, "learning_rate": 2e-2, "batch_size": 8, "logging_steps": 1, "epochs": 2, "warmup_ratio": 0.0}


def on_gpu(dtype=torch.float32, **changes):
    model = tiny_llama(vocab_size=8192, max_position_embeddings=128, hidden_size=64, intermediate_size=128, **changes)
    return Base(model.to("cuda", dtype), tokenizer=AutoTokenizer.from_pretrained(EXAMPLE_BASE))


@pytest.fixture
def ids():
    return torch.randint(1, 8000, (4, 11), generator=torch.Generator().manual_seed(7)).cuda()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_each_row_of_a_mixed_batch_equals_its_solo_answer(ids, dtype, tolerance):
    base = on_gpu(dtype)
    adapters = [make_adapter(base, seed=seed, rank=rank) for seed, rank in enumerate((3, 8))]
    chosen = [adapters[0], None, adapters[1], adapters[0]]
    mixed = base.logits(ids, adapter=chosen)
    for row, adapter in enumerate(chosen):
        solo = base.logits(ids[row : row + 1], adapter=adapter)
        torch.testing.assert_close(mixed[row : row + 1], solo, atol=tolerance, rtol=tolerance)


def test_recomputing_in_a_thread_of_autograd_follows_the_same_adapter():
    plain = on_gpu().train(ROWS, **OPTIONS)
    recomputed = on_gpu().train(ROWS, gradient_checkpointing=True, **OPTIONS)
    for name, tensor in plain.tensors.items():
        torch.testing.assert_close(recomputed.tensors[name], tensor, atol=1e-4, rtol=0)


@pytest.mark.parametrize("options", [{}, {"bf16": True}])
def test_training_learns_and_leaves_every_bit_of_the_base(options):
    base = on_gpu(torch.bfloat16)
    before = state_digest(base.model)
    adapter = base.train(ROWS, **OPTIONS, **options)
    assert state_digest(base.model) == before
    assert all(tensor.dtype == torch.float32 for tensor in adapter.tensors.values())
    scores = base.evaluate(ROWS, adapter=adapter)
    assert scores["loss"] < scores.base["loss"] - 0.3


def test_a_4_bit_base_is_adapted_and_left_alone(ids):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model = tiny_llama(vocab_size=8192, max_position_embeddings=128, hidden_size=64, intermediate_size=128)
    for parent in [*model.modules()]:
        for name, child in [*parent.named_children()]:
            if isinstance(child, torch.nn.Linear) and child is not model.lm_head:
                layer = bitsandbytes.nn.Linear4bit(
                    child.in_features, child.out_features, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4"
                )
                layer.load_state_dict(child.state_dict())
                setattr(parent, name, layer)
    base = Base(model.to(torch.bfloat16).cuda(), tokenizer=AutoTokenizer.from_pretrained(EXAMPLE_BASE))
    before = state_digest(base.model)
    adapter = base.train(ROWS, **OPTIONS)
    assert state_digest(base.model) == before
    assert not torch.allclose(base.logits(ids, adapter=adapter), base.logits(ids), atol=1e-2)


def test_a_captured_graph_replays_the_adapter_that_it_was_captured_with(ids):
    base = on_gpu()
    adapter = make_adapter(base, rank=4)
    base.use(adapter)
    model, stream = base.model, torch.cuda.Stream()
    with torch.no_grad(), torch.cuda.stream(stream):
        for _ in range(3):
            model(ids, use_cache=False)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        captured = model(ids, use_cache=False).logits
    graph.replay()
    torch.testing.assert_close(captured, base.logits(ids, adapter=adapter), atol=1e-5, rtol=0)


def test_answers_of_a_mixed_batch_are_those_of_each_alone():
    base = on_gpu()
    adapter = base.train(ROWS, **OPTIONS)
    prompts = [row["prompt"] for row in ROWS[:4]]
    mixed = base.generate(prompts, adapter=[adapter, None, adapter, None], max_new_tokens=8)
    alone = [
        base.generate(prompt, adapter=chosen, max_new_tokens=8)
        for prompt, chosen in zip(prompts, [adapter, None, adapter, None], strict=True)
    ]
    assert mixed == alone
