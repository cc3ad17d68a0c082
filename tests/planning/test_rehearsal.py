"""A step without numbers takes what the same step takes with them."""

import contextlib
import types

import attrs
import pytest
import torch

from adapterkit import Base, LayerConfig, LayerMethod, Registry, hookimpl
from adapterkit.config import build_config
from adapterkit.contracts import Example
from adapterkit.data.packing import pack
from adapterkit.errors import ConfigError
from adapterkit.planning.limits import Curve
from adapterkit.planning.meter import Meter, rounded
from adapterkit.planning.rehearsal import Row, Stage, Step
from adapterkit.planning.rehearsals import Rehearsals
from adapterkit.planning.skeleton import BaseShape, depths, skeleton, with_layers
from adapterkit.quantization import bytes_of
from adapterkit.registry import default_registry
from adapterkit.resident import build_layers
from adapterkit.testing import tiny_gpt2, tiny_llama, tiny_moe, tiny_qwen
from adapterkit.train.forward import AdapterInTraining, recomputing
from adapterkit.train.options import split_options
from tests.support import EXAMPLE_BASE

REGISTRY = default_registry()
ROWS = [Row(48, 47), Row(24, 23), Row(16, 15)]


def parts(method, **options):
    chosen = REGISTRY.method(method)
    config, run = split_options(chosen, {"bf16": False, "tokens_per_pass": None, **options})
    return chosen, config, run


def rehearsed(model, method, rows=ROWS, **options):
    chosen, config, run = parts(method, **options)
    shape = BaseShape.read(model)
    return Stage(skeleton(shape, shape.layers), chosen, config, REGISTRY).rehearse(rows, run)


def taken(model, method, **options):
    """The same step with numbers, and what it held in each pass."""
    chosen, config, run = parts(method, **options)
    base = Base(model)
    config = REGISTRY.call("configure", chosen, config=config, sites=base.sites)
    layers = build_layers(REGISTRY, chosen, config, base.sites)
    module = AdapterInTraining(base.model, chosen.name, layers, base.runtime, REGISTRY.objective("sft"), run).train()
    examples = [Example((1,) * row.length, (-100,) + (1,) * row.trained).after(module.virtual_tokens()) for row in ROWS]
    known = [*base.model.parameters(), *base.model.buffers(), *layers.parameters()]
    meter = _Seeing(known)
    with meter:
        meter.enter("forward 1")
        batch = pack(examples, 0, "cpu", torch.float32)
        with recomputing(base.model, base.runtime) if run.gradient_checkpointing else contextlib.nullcontext():
            loss = module(batch).total / sum(row.trained for row in ROWS)
            meter.enter("backward 1")
            torch.autograd.backward(loss)
    base.detach()
    return meter.peaks


class _Seeing(Meter):
    """Counts what is there, and answers nothing itself."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(one, torch.Tensor):
                self._see(one)
        return out


@pytest.mark.parametrize("make", [tiny_llama, pytest.param(tiny_qwen, marks=pytest.mark.slow), tiny_gpt2])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("lora", {}),
        ("lora", {"gradient_checkpointing": True}),
        ("lora", {"dropout": 0.1}),
        ("prompt_tuning", {"tokens": 16}),
        ("full", {}),
    ],
)
def test_a_rehearsal_holds_what_a_step_holds(make, method, options):
    with_numbers, without = taken(make(), method, **options), rehearsed(make(), method, **options)
    for phase, peak in with_numbers.items():
        if phase:
            assert without.peaks[phase].held == pytest.approx(peak.held, rel=0.06), phase


@pytest.mark.parametrize("method", ["lora", "prompt_tuning", "full"])
def test_what_is_trained_and_its_optimizer_are_counted(method):
    step = rehearsed(tiny_llama(), method)
    base = Base(tiny_llama())
    chosen, config, _ = parts(method)
    config = REGISTRY.call("configure", chosen, config=config, sites=base.sites)
    trained = [one for one in build_layers(REGISTRY, chosen, config, base.sites).parameters() if one.requires_grad]
    assert step.parameters == sum(one.numel() for one in trained)
    assert step.adapter == sum(rounded(one.nbytes) for one in trained)
    assert step.optimizer >= 2 * step.adapter
    assert step.peaks["backward 1"].held >= step.adapter, "its gradients are there when the pass ends"


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_moe])
@pytest.mark.parametrize("options", [pytest.param({}, marks=pytest.mark.slow), {"gradient_checkpointing": True}])
def test_few_blocks_tell_of_many(make, options):
    layers = {"n_layer": 8} if make is tiny_gpt2 else {"num_hidden_layers": 8}
    chosen, config, run = parts("lora", **options)
    shape = BaseShape.read(make(**layers))
    few = Rehearsals(shape, REGISTRY, fused=True).step(chosen, config, run, ROWS)
    whole = Stage(skeleton(shape, 8, fused=True), chosen, config, REGISTRY).rehearse(ROWS, run)
    assert few.parameters == whole.parameters
    assert sum(few.weights.values()) == sum(whole.weights.values())
    for phase, peak in whole.peaks.items():
        assert few.peaks[phase].held == pytest.approx(peak.held, rel=0.01, abs=4096), phase
    assert sum(n * one.flops for one, n in few.work.items()) == pytest.approx(
        sum(n * one.flops for one, n in whole.work.items())
    )


def test_blocks_that_are_not_alike_are_all_rehearsed():
    shape = BaseShape.read(tiny_moe(num_hidden_layers=12, mlp_only_layers=[0]))
    chosen, config, run = parts("lora")
    rehearsals = Rehearsals(shape, REGISTRY, fused=True)
    step = rehearsals.step(chosen, config, run, ROWS)
    whole = Stage(skeleton(shape, 12, fused=True), chosen, config, REGISTRY).rehearse(ROWS, run)
    assert sum(step.weights.values()) == sum(whole.weights.values())


def test_a_pattern_of_blocks_is_taken_as_a_whole():
    config = tiny_qwen(num_hidden_layers=24).config
    config.layer_types = ["sliding_attention", "sliding_attention", "full_attention"] * 8
    assert depths(BaseShape(name="x", config=config, dtype=torch.float32)) == (6, 12)
    assert with_layers(config, 6).layer_types == config.layer_types[:6]
    config.layer_types = ["sliding_attention"] * 23 + ["full_attention"]
    assert depths(BaseShape(name="x", config=config, dtype=torch.float32)) == (24,)


def test_three_steps_tell_of_any_length():
    chosen, config, run = parts("lora", packing=False)
    rehearsals = Rehearsals(BaseShape.read(tiny_llama(vocab_size=2048)), REGISTRY, fused=True)

    def step(rows):
        return rehearsals.step(chosen, config, run, [Row(512, 511)] * rows)

    curve, far = Curve(step, 512, 2048), 200
    for phase, peak in step(far).peaks.items():
        assert curve.at(far).peaks[phase].held == pytest.approx(peak.held, rel=0.01)


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_a_base_in_few_bits_takes_what_bitsandbytes_takes(quantize):
    real = Base(EXAMPLE_BASE, quantize=quantize, dtype="bfloat16")
    shape = BaseShape.read(str(EXAMPLE_BASE))
    planned = skeleton(shape, shape.layers, quantize)
    with planned.mode:
        found = sum(planned.bytes_by_dtype().values())
    assert found == pytest.approx(bytes_of(real.model), rel=0.01)


def test_several_passes_hold_the_gradients_of_those_before():
    step = rehearsed(tiny_llama(), "lora", tokens_per_pass=48)
    assert step.passes == 2
    assert step.peaks["forward 2"].gradients > 0 == step.peaks["forward 1"].gradients


def test_offloading_keeps_nothing_large_on_the_device():
    rows, model = [Row(2048, 2047)], tiny_llama(hidden_size=512, intermediate_size=512, max_position_embeddings=4096)
    kept = [
        rehearsed(model, "lora", rows, gradient_checkpointing=True, activation_offload=offload).kept["backward 1"]
        for offload in (False, True)
    ]
    assert kept[1] < 0.5 * kept[0]


class Counting(torch.nn.Module):
    def __init__(self, site, config):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(site.out_features))

    def forward(self, x, y):
        return y * self.weight * float(x.detach().numpy().mean())


@hookimpl
def adapterkit_methods():
    yield LayerMethod("counting", LayerConfig, layer=Counting)


def test_a_method_that_needs_numbers_is_refused_by_name():
    registry = Registry()
    plugin = types.ModuleType("counting")
    plugin.adapterkit_methods = adapterkit_methods
    registry.add(plugin)
    chosen = registry.method("counting")
    config, run = split_options(chosen, {"bf16": False})
    shape = BaseShape.read(tiny_llama())
    with pytest.raises(ConfigError, match="'counting' cannot be planned for"):
        Stage(skeleton(shape, 2), chosen, config, registry).rehearse(ROWS, run)


def test_a_model_is_left_as_it_is():
    model = tiny_llama()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    rehearsed(model, "lora")
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert model.config._attn_implementation == "sdpa"
    assert not any(module._forward_hooks for module in model.modules())


def test_steps_are_mixed_as_lagrange_has_it():
    base = rehearsed(tiny_llama(), "lora")
    steps = [(n, attrs.evolve(base, launches=3.0 * n**2 - n + 7)) for n in (1, 2, 3)]
    assert Step.through(steps, 10).launches == pytest.approx(297)


def test_a_configuration_is_that_of_the_method():
    assert build_config(REGISTRY.method("lora").config, {}, what="options").rank == 16
