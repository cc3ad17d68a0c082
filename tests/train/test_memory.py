"""What saves memory changes nothing else: activations kept elsewhere, and batches in several passes."""

import pytest
import torch

from adapterkit import ConfigError
from adapterkit.data.batching import in_passes
from adapterkit.testing import tiny_gpt2, tiny_llama
from adapterkit.train import offload
from tests.train.test_training import OPTIONS, ROWS, close, fresh, tokenizer  # noqa: F401 - a fixture


@pytest.fixture
def moved(monkeypatch):
    """The tensors that are kept in the host's memory, as they are there."""
    monkeypatch.setattr(offload, "LEAST_BYTES", 64)
    kept, hooks = [], torch.autograd.graph.saved_tensors_hooks

    def watched(pack, unpack):
        def watch(tensor):
            packed = pack(tensor)
            if packed is not tensor:
                kept.append(tensor)
            return packed

        return hooks(watch, unpack)

    monkeypatch.setattr(torch.autograd.graph, "saved_tensors_hooks", watched)
    return kept


@pytest.mark.parametrize("family", [tiny_llama, tiny_gpt2])
def test_activations_in_the_hosts_memory_make_the_same_adapter_to_the_bit(tokenizer, family, moved):  # noqa: F811
    options = {**OPTIONS, "gradient_checkpointing": True, "max_steps": 2, "dropout": 0.2}
    plain = fresh(tokenizer, family).train(ROWS, **options)
    assert moved == []
    assert fresh(tokenizer, family).train(ROWS, activation_offload=True, **options).digest == plain.digest
    assert moved


def test_the_inputs_of_blocks_are_moved_and_no_weight_is(tokenizer, moved):  # noqa: F811
    base, inputs = fresh(tokenizer), []
    for layer in base.model.model.layers:
        layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0].data_ptr()))
    options = {**OPTIONS, "gradient_checkpointing": True, "max_steps": 1, "target_modules": ["q_proj", "lm_head"]}
    base.train(ROWS, activation_offload=True, **options)
    addresses = {tensor.data_ptr() for tensor in moved}
    assert set(inputs[-2:]) <= addresses
    assert not {parameter.data_ptr() for parameter in base.model.parameters()} & addresses
    width = base.model.config.intermediate_size
    assert not [one for one in moved if one.shape[-1] == width], (
        "what is inside of a block is computed again, not moved"
    )


def test_offloading_without_recomputation_is_refused(tokenizer):  # noqa: F811
    with pytest.raises(ConfigError, match="activation_offload: needs gradient_checkpointing=True"):
        fresh(tokenizer).train(ROWS, activation_offload=True, **OPTIONS)


@pytest.mark.parametrize("packing", [True, False])
def test_a_batch_in_several_passes_is_the_same_step(tokenizer, packing):  # noqa: F811
    options = {**OPTIONS, "packing": packing, "batch_size": 24, "max_steps": 3}
    base, passes = fresh(tokenizer), []
    whole = base.train(ROWS, **options)
    base.model.register_forward_pre_hook(
        lambda _, __, given: passes.append(given["input_ids"].numel()), with_kwargs=True
    )
    parts = base.train(ROWS, tokens_per_pass=100, **options)
    assert len(passes) > 12
    assert max(passes) < 300, "the longest row, padded or not, is far shorter than the batch"
    assert close(whole, parts, 1e-4)


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (None, [[3, 0, 1, 2]]),
        (10, [[3, 0], [1], [2]]),
        (100, [[3, 0, 1, 2]]),
        (1, [[3], [0], [1], [2]]),
        (18, [[3, 0], [1, 2]]),
    ],
)
def test_passes_hold_as_many_rows_as_fit(most, expected):
    assert in_passes([3, 0, 1, 2], [5, 12, 6, 5], most) == expected
