"""Full fine-tuning: the weights' own gradients, on differences that leave the base as it is."""

import copy

import pytest
import torch
from torch.nn import functional

from adapterkit import Adapter, Base, SelectionError, TargetError
from adapterkit.resident import build_layers, plan_of_layers
from adapterkit.testing import tiny_gpt2, tiny_llama
from adapterkit_full.algebra import parameter_of
from tests.sample_tokenizers import example_tokenizer
from tests.support import EXAMPLE_BASE, FAMILIES, losses_of, make_adapter, state_digest

CLOSE = {"atol": 1e-5, "rtol": 0}
ROWS = [{"prompt": f"say {n}", "completion": word} for n, word in enumerate(["one", "two", "three"] * 4)]


@pytest.fixture(params=[*FAMILIES, "tied llama"])
def base(request):
    return Base(tiny_llama(tied=True) if request.param == "tied llama" else FAMILIES[request.param]())


@pytest.fixture
def ids():
    return torch.randint(1, 97, (4, 11), generator=torch.Generator().manual_seed(0))


def full(base, scale=0.05, **options):
    return make_adapter(base, method="full", scale=scale, **options)


def changed(model, adapter):
    """A copy of the model with the differences added to its parameters, in float64."""
    model = copy.deepcopy(model).double()
    parameters = dict(model.named_parameters())
    for name, delta in adapter.tensors.items():
        parameter = parameters[parameter_of(name)]
        parameter.data += (delta if is_stored_as_here(name, model) else delta.T).double()
    return model


def is_stored_as_here(name, model):
    """Whether the base stores the parameter as the adapter does; GPT-2's layers store the transpose."""
    site = model.get_submodule(name.rpartition(".")[0])
    return type(site).__name__ != "Conv1D" or not name.endswith("weight")


def test_the_differences_are_added_to_every_parameter(base, ids):
    adapter = full(base)
    assert adapter.parameters == sum(p.numel() for p in base.model.parameters())
    twin = changed(base.model, adapter)
    base.detach()  # the copy has taken the hooks along
    with torch.no_grad():
        want = twin(ids).logits
    torch.testing.assert_close(base.logits(ids, adapter=adapter).double(), want, **CLOSE)


def test_gradients_are_those_of_the_weights(base, ids):
    method = base.registry.method("full")
    layers = build_layers(base.registry, method, method.config(), base.sites)
    with base.runtime.override(plan_of_layers("full", layers)):
        loss = functional.cross_entropy(base.model(ids).logits.flatten(0, 1), ids.flatten())
    loss.backward()
    base.detach()
    twin = copy.deepcopy(base.source.location).requires_grad_(requires_grad=True)
    functional.cross_entropy(twin(ids).logits.flatten(0, 1), ids.flatten()).backward()
    want = {name: parameter.grad for name, parameter in twin.named_parameters()}
    got = {f"{site}.{name}": one.grad for site, layer in layers.items() for name, one in layer.named_parameters()}
    assert {parameter_of(name) for name in got} == set(want)
    for name, grad in got.items():
        stored = grad if is_stored_as_here(name, twin) else grad.T
        torch.testing.assert_close(stored, want[parameter_of(name)], atol=1e-6, rtol=1e-4)


def test_rows_are_answered_as_if_they_were_alone(base, ids):
    chosen = [
        full(base),
        make_adapter(base, rank=4),
        full(base, seed=1),
        make_adapter(base, method="prompt_tuning", tokens=3),
    ]
    mixed = base.logits(ids, adapter=chosen)
    for row, adapter in enumerate(chosen):
        torch.testing.assert_close(mixed[row : row + 1], base.logits(ids[row : row + 1], adapter=adapter), **CLOSE)


@pytest.mark.parametrize(
    ("options", "sites"),
    [
        ({"target_modules": "layers.1"}, 9),
        ({"target_modules": ["norm", "lm_head"]}, 2),
        ({"target_modules": "q_proj"}, 2),
        ({"target_modules": r".*\.(k|v)_proj"}, 4),
        ({"exclude_modules": ["mlp", "embed_tokens"]}, 14),
        ({}, 21),
    ],
)
def test_layers_and_blocks_are_chosen_by_name(options, sites):
    adapter = full(Base(tiny_llama()), **options)
    assert len({name.rpartition(".")[0] for name in adapter.tensors}) == sites


@pytest.mark.parametrize(
    ("target", "own"),
    [
        ("bias", 13),
        ("attn.c_attn.bias", 2),
        ("transformer.h.0.attn.c_attn.weight", 1),
        ("h.1.mlp", 4),
        ("wte.weight", 1),
    ],
)
def test_parameters_are_chosen_by_name(ids, target, own):
    base = Base(tiny_gpt2())
    adapter = full(base, target_modules=target)
    assert all(f".{target}." in f".{parameter_of(name)}." for name in adapter.tensors)
    assert len(adapter.tensors) == own
    twin = changed(base._loaded.model, adapter)
    with torch.no_grad():
        want = twin(ids).logits
    torch.testing.assert_close(base.logits(ids, adapter=adapter).double(), want, **CLOSE)


def test_a_tied_head_changes_with_the_embedding_and_is_saved_once(ids):
    base = Base(tiny_llama(tied=True))
    for target in ("embed_tokens", "lm_head"):
        adapter = full(base, target_modules=target)
        assert list(adapter.tensors) == ["model.embed_tokens.embedding_delta"]
        twin = changed(base._loaded.model, adapter)
        assert twin.lm_head.weight is twin.model.embed_tokens.weight
        with torch.no_grad(), base.using(None):
            want = twin(ids).logits
        torch.testing.assert_close(base.logits(ids, adapter=adapter).double(), want, **CLOSE)


@pytest.mark.parametrize(
    "options", [{"target_modules": "q_prj"}, {"exclude_modules": ["nothing"]}, {"target_modules": "x+"}]
)
def test_a_name_that_chooses_nothing_is_refused(options):
    with pytest.raises(TargetError, match="target module"):
        full(Base(tiny_llama()), **options)


def test_training_lowers_the_loss_and_leaves_the_base_alone(tmp_path):
    base = Base(EXAMPLE_BASE)
    before = state_digest(base.model)
    options = {"learning_rate": 1e-3, "max_steps": 8, "batch_size": 6, "logging_steps": 1, "warmup_ratio": 0.0}
    adapter = base.train(ROWS, method="full", output=tmp_path, **options)
    losses = losses_of(tmp_path)
    assert losses[-1] < losses[0] - 1
    assert state_digest(base.model) == before
    again = Base(EXAMPLE_BASE)
    assert again.load(tmp_path / "adapter") == adapter
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(again.logits(ids, adapter=adapter), base.logits(ids, adapter=adapter))


def test_baked_weights_are_a_model_of_their_own_that_answers_the_same(base, ids, tmp_path):
    adapter = full(base)
    before = state_digest(base.model)
    folder = base.bake(adapter, tmp_path / "whole")
    assert state_digest(base.model) == before
    baked = Base(folder, tokenizer=object())
    torch.testing.assert_close(baked.logits(ids), base.logits(ids, adapter=adapter), **CLOSE)
    tied = base.model.config.tie_word_embeddings
    assert (baked.model.get_output_embeddings().weight is baked.model.get_input_embeddings().weight) == tied


@pytest.mark.parametrize(
    "options", [{}, {"target_modules": "lm_head"}, {"target_modules": ["wte", "c_attn"]}, {"use_rslora": True}]
)
def test_low_rank_updates_are_baked_too(options, ids, tmp_path):
    family = tiny_gpt2 if "c_attn" in options.get("target_modules", ()) else tiny_llama
    base = Base(family(tie_word_embeddings=False))
    adapter = make_adapter(base, rank=4, **options)
    baked = Base(base.bake(adapter, tmp_path / "whole"), tokenizer=object())
    torch.testing.assert_close(baked.logits(ids), base.logits(ids, adapter=adapter), **CLOSE)


def test_what_cannot_be_baked_is_refused_and_nothing_is_written(base, tmp_path):
    with pytest.raises(SelectionError, match="tokens before the sequence"):
        base.bake(make_adapter(base, method="prompt_tuning"), tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(SelectionError, match="not empty"):
        base.bake(full(base), tmp_path / "mine")
    tied = Base(tiny_llama(tied=True))
    with pytest.raises(SelectionError, match="shares its weight"):
        tied.bake(make_adapter(tied, target_modules=["lm_head"]), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_the_base_tokenizer_goes_with_a_baked_model(tmp_path):
    base = Base(EXAMPLE_BASE)
    folder = base.bake(make_adapter(base, scale=0.01), tmp_path / "whole")
    assert Base(folder).tokenizer("yes")["input_ids"] == example_tokenizer()("yes")["input_ids"]
    assert isinstance(Adapter.load(make_adapter(base).save(tmp_path / "a")), Adapter)
