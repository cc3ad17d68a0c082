"""How LoRA starts: what it starts from, that nothing changes by it, and that what is kept needs no other base."""

import attrs
import peft
import pytest
import torch

from adapterkit import Adapter, Base, ConfigError, Example
from adapterkit.artifact.manifest import Manifest
from adapterkit.registry import default_registry
from adapterkit.resident import build_layers, flatten, plan_of_layers
from tests.plugins.lora_cases import FAMILIES, OPTIONS, TYING, loaded_by_peft, options_for
from tests.support import EXAMPLE_BASE, state_digest

CLOSE = {"atol": 1e-5, "rtol": 0}
EXACT = (None, "gaussian", "pissa", "pissa_niter_8", "olora", "eva")
TIED = ("tied", "gpt2")
SHIFTED = ("pissa", "pissa_niter_8", "olora")
PATTERNS = {"rank_pattern": {"{out}": 2}, "alpha_pattern": {"{in}": 3.0}}


@pytest.fixture
def examples():
    rows = torch.randint(1, 97, (12, 16), generator=torch.Generator().manual_seed(3)).tolist()
    return [Example(input_ids=tuple(row), labels=(-100, -100, *row[2:])) for row in rows]


def started(base, examples, family, **options):
    """The configuration and the layers of a run before its first step."""
    registry = default_registry()
    method = registry.method("lora")
    config = method.config(**{"rank": 4, "alpha": 6.0, **_tuples(options_for(family, options))})
    config = registry.call("configure", method, config=config, sites=base.sites)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = build_layers(registry, method, config, base.sites)
        registry.call("initialize", method, config=config, layers=dict(layers.items()), base=base, examples=examples)
    return config, layers


def _tuples(options):
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


def forward(base, layers, ids):
    with base.runtime.override(plan_of_layers("lora", layers)):
        return base.model(ids).logits


def trained(base, config, layers, ids, *, steps=2):
    """The adapter after a few steps, and what the layers themselves answered last."""
    parameters = [one for one in layers.parameters() if one.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    for _ in range(steps):
        logits = forward(base, layers, ids)
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        said = forward(base, layers.eval(), ids)
    registry = default_registry()
    method = registry.method("lora")
    config, kept = registry.call("finish", method, config=config, layers=dict(layers.items()))
    return Adapter("lora", config, flatten(kept), Manifest(base=base.reference)), said


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", EXACT)
def test_a_fresh_adapter_changes_no_bit(family, how, ids, examples):
    base = Base(FAMILIES[family]())
    before = state_digest(base.model)
    _, layers = started(base, examples, family, init_lora_weights=how, **PATTERNS)
    with torch.no_grad():
        assert torch.equal(forward(base, layers, ids), base.logits(ids))
    assert state_digest(base.model) == before


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_whatever_is_trained_it_starts_as_the_base(family, options, ids, examples):
    base = Base(FAMILIES[family]())
    _, layers = started(base, examples, family, **options)
    with torch.no_grad():
        assert torch.equal(forward(base, layers, ids), base.logits(ids))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", OPTIONS)
def test_what_was_not_trained_yet_is_the_base_as_effects_too(family, name, ids, examples):
    base = Base(FAMILIES[family]())
    config, layers = started(base, examples, family, **OPTIONS[name])
    said = base.logits(ids, adapter=Adapter("lora", config, flatten(layers), Manifest(base=base.reference)))
    if "tokens" in name and family in TIED:  # a few of the head's logits by themselves are another product
        torch.testing.assert_close(said, base.logits(ids), **CLOSE)
    else:
        assert torch.equal(said, base.logits(ids))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_what_is_trained_is_what_is_kept_and_what_peft_loads(family, options, ids, examples, tmp_path):
    base = Base(FAMILIES[family]())
    before = state_digest(base.model)
    adapter, said = trained(base, *started(base, examples, family, **options), ids)
    torch.testing.assert_close(base.logits(ids, adapter=adapter), said, **CLOSE)
    assert state_digest(base.model) == before
    theirs = loaded_by_peft(family, adapter.save(tmp_path / "adapter"))
    torch.testing.assert_close(theirs(ids).logits, said, **CLOSE)
    assert not torch.allclose(said, base.logits(ids), atol=1e-2), "nothing was trained: the test is blind"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("how", [*EXACT[1:], "orthogonal"])
def test_however_it_starts_a_plain_lora_is_kept(family, rslora, how, ids, examples, tmp_path):
    base = Base(FAMILIES[family]())
    before = state_digest(base.model)
    config, layers = started(base, examples, family, init_lora_weights=how, use_rslora=rslora, **PATTERNS)
    adapter, said = trained(base, config, layers, ids)
    assert adapter.config.init_lora_weights is None
    assert adapter.config.rank == (8 if how in SHIFTED else 4)
    torch.testing.assert_close(base.logits(ids, adapter=adapter), said, **CLOSE)
    theirs = loaded_by_peft(family, adapter.save(tmp_path / "adapter"))
    torch.testing.assert_close(theirs(ids).logits, said, **CLOSE)
    assert state_digest(base.model) == before


@pytest.mark.parametrize("family", ["tied", "gpt2"])
@pytest.mark.parametrize("options", TYING.values(), ids=TYING.keys())
def test_what_is_trained_as_one_is_kept_as_two(family, options, ids, examples, tmp_path):
    base = Base(FAMILIES[family]())
    config, layers = started(base, examples, family, ensure_weight_tying=True, **options)
    with torch.no_grad():
        assert torch.equal(forward(base, layers, ids), base.logits(ids))
    adapter, said = trained(base, config, layers, ids)
    torch.testing.assert_close(base.logits(ids, adapter=adapter), said, **CLOSE)
    theirs = loaded_by_peft(family, adapter.save(tmp_path / "adapter"))
    torch.testing.assert_close(theirs(ids).logits, said, **CLOSE)
    changes = {site.name: site for site in base.sites if site.is_head or site.tied_to or "lm_head" in site.name}
    assert all(name in layers for name in changes), "the head does not follow: the test is blind"


@pytest.mark.parametrize(("family", "how"), [("llama", "pissa"), ("gpt2", "pissa"), ("llama", "olora")])
def test_the_factors_start_where_pefts_do(family, how, examples):
    options = options_for(family, {})
    theirs = peft.get_peft_model(
        FAMILIES[family](), peft.LoraConfig(r=4, lora_alpha=6, init_lora_weights=how, **options)
    )
    _, layers = started(Base(FAMILIES[family]()), examples, family, init_lora_weights=how)
    for name, layer in layers.items():
        module = theirs.base_model.model.get_submodule(name)
        product = layer.factors()[1] @ layer.factors()[0]
        torch.testing.assert_close(product, module.lora_B["default"].weight @ module.lora_A["default"].weight, **CLOSE)


def test_eva_starts_where_pefts_does(examples):
    options = options_for("llama", {})
    model = peft.get_peft_model(
        FAMILIES["llama"](),
        peft.LoraConfig(r=4, init_lora_weights="eva", eva_config=peft.EvaConfig(rho=1.0), **options),
    )
    pairs = [examples[start : start + 2] for start in range(0, len(examples), 2)]  # as many rows as we show it at once
    batches = [
        {name: torch.tensor([getattr(one, name) for one in pair]) for name in ("input_ids", "labels")} for pair in pairs
    ]
    peft.initialize_lora_eva_weights(model, batches, show_progress_bar=False)
    _, layers = started(Base(FAMILIES["llama"]()), examples, "llama", init_lora_weights="eva")
    for name, layer in layers.items():
        theirs = model.base_model.model.get_submodule(name).lora_A["default"].weight
        torch.testing.assert_close(layer.factors()[0], theirs, **CLOSE)


def test_orthogonal_factors_cancel(examples):
    _, layers = started(Base(FAMILIES["llama"]()), examples, "llama", init_lora_weights="orthogonal")
    for layer in layers.values():
        down, up = layer.factors()
        assert down.abs().max() > 0.01
        assert up.abs().max() > 0.01
        assert (up @ down).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"init_lora_weights": "orthogonal", "rank": 3}, "even"),
        ({"init_lora_weights": "pissa", "rank": 40}, "has 32 directions at .* and the rank is 40"),
        ({"init_lora_weights": "eva", "rank": 40}, "has 32 directions"),
        ({"init_lora_weights": "pissa", "use_dora": True}, "does not go with use_dora"),
        ({"init_lora_weights": "loftq"}, "no target is quantized"),
        ({"layers_pattern": ("layers",), "init_lora_weights": "orthogonal", "rank": 5}, "(?s)layers_pattern.*even"),
        ({"ensure_weight_tying": True}, "no two layers of this base share a weight"),
        ({"trainable_token_indices": (1, 1)}, r"\[1, 1\] are no rows"),
        ({"trainable_token_indices": (97,)}, "no rows of 'model.embed_tokens', which has 97"),
        (
            {"trainable_token_indices": (1,), "target_modules": ("embed_tokens",)},
            "is trained as a target or as a whole",
        ),
        (
            {"trainable_token_indices": (1,), "modules_to_save": ("embed_tokens",)},
            "is trained as a target or as a whole",
        ),
    ],
)
def test_options_that_do_not_go_together_say_why(examples, options, said):
    with pytest.raises(ConfigError, match=said):
        started(Base(FAMILIES["llama"]()), examples, "llama", **options)


def test_eva_needs_rows_enough(examples):
    with pytest.raises(ConfigError, match="needs 16 trained tokens, four for each direction; these rows have 14"):
        started(Base(FAMILIES["llama"]()), examples[:1], "llama", init_lora_weights="eva")


def test_a_name_that_is_no_start_is_refused():
    with pytest.raises(ValueError, match=r"must be true or one of gaussian, .*, not 'pisa'"):
        default_registry().method("lora").config(init_lora_weights="pisa")


def test_lora_plus_trains_b_faster():
    method = default_registry().method("lora")
    config = attrs.evolve(method.config(), loraplus_lr_ratio=16.0)
    factors = [method.learning_rate_factor(config, f"a.q_proj.{part}") for part in ("lora_A.weight", "lora_B.weight")]
    assert factors == [1.0, 16.0]
    assert method.learning_rate_factor(method.config(), "a.q_proj.lora_B.weight") == 1.0


def test_loftq_makes_up_for_what_quantization_loses(examples):
    pytest.importorskip("bitsandbytes")
    quantized, whole = Base(EXAMPLE_BASE, quantize="nf4"), Base(EXAMPLE_BASE)
    options = {"target_modules": ["q_proj", "down_proj"], "rank": 8, "init_lora_weights": "loftq"}
    _, layers = started(quantized, examples, "llama", **options)
    weights = {site.name: site.weight for site in whole.sites}
    for name, layer in layers.items():
        down, up = layer.factors()
        kept = layer.site.dense_weight().float()
        lost = weights[name] - kept
        rest = torch.linalg.svdvals(lost)[8:]  # what the best approximation of this rank leaves (Eckart and Young 1936)
        torch.testing.assert_close((lost - layer.scale * up @ down).norm(), rest.norm(), rtol=1e-4, atol=0)


def test_loftq_needs_to_know_the_original_weights(examples):
    pytest.importorskip("bitsandbytes")
    unknown = Base(EXAMPLE_BASE, quantize="nf4")
    _ = unknown.model
    unknown.source = attrs.evolve(unknown.source, location="nobody/nothing")
    with pytest.raises(ConfigError, match="needs the original weights: 'nobody/nothing' is not in the cache"):
        started(unknown, examples, "llama", init_lora_weights="loftq")


@pytest.mark.parametrize(
    "options",
    [
        {"use_dora": True, "dropout": 0.1, "bf16": True},
        {"bias": "all", "gradient_checkpointing": True},
        {"modules_to_save": ["lm_head"], "loraplus_lr_ratio": 4.0},
        {"trainable_token_indices": [5, 9], "layers_to_transform": 0},
        {"init_lora_weights": "pissa", "dropout": 0.1, "bf16": True},
        {"init_lora_weights": "eva", "use_dora": True},
        {"target_modules": ["q_proj", "embed_tokens", "lm_head"], "ensure_weight_tying": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_a_run_trains_what_was_asked_for(example_base, options, tmp_path):
    before = state_digest(example_base.model)
    rows = [{"prompt": f"{n} and {n}?", "completion": f"{2 * n}"} for n in range(30)]
    first, second = (
        example_base.train(rows, rank=2, max_steps=3, batch_size=4, learning_rate=5e-3, **options) for _ in range(2)
    )
    assert first == second, "the same run makes the same adapter"
    assert example_base.load(first.save(tmp_path / "adapter")) == first
    ids = torch.randint(1, 400, (2, 9))
    assert not torch.equal(example_base.logits(ids, adapter=first), example_base.logits(ids))
    assert state_digest(example_base.model) == before
