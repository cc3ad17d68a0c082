"""A method's own layers: held to their contract, so that no plugin breaks the base or answers wrongly without a word."""

import attrs
import pytest
import torch
from torch import nn

from adapterkit import Adapter, Base, Bias, LayerMethod, PluginError, Registry, hookimpl
from adapterkit.artifact.manifest import Manifest
from adapterkit.resident import build_layers, flatten
from adapterkit.testing import tiny_llama
from tests.support import EXAMPLE_BASE, state_digest

CLOSE = {"atol": 1e-5, "rtol": 0}


@attrs.frozen
class Config:
    target_modules: str | tuple[str, ...] = "all-linear"


class Shift(nn.Module):
    """Adds a vector; what other layers here do wrongly."""

    def __init__(self, site, config):
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(site.out_features))

    def forward(self, x, y):
        return y + self.vector


class WritesInput(Shift):
    def forward(self, x, y):
        return y + x.mul_(0.5).sum() * self.vector


class WritesOutput(Shift):
    def forward(self, x, y):
        return y.add_(self.vector)


class Forgets(Shift):
    def forward(self, x, y):
        y + self.vector  # what is forgotten is to return it


class Shrinks(Shift):
    def forward(self, x, y):
        return y.mean(-1, keepdim=True)


class Raises(Shift):
    def forward(self, x, y):
        raise RuntimeError("in the middle of it")


class Widens(Shift):
    def forward(self, x, y):
        return y.double() + self.vector


class HoldsModule(Shift):
    def __init__(self, site, config):
        super().__init__(site, config)
        self.inner = site.module


class HoldsWeight(Shift):
    def __init__(self, site, config):
        super().__init__(site, config)
        self.weight = site.module.weight


class Plugin:
    def __init__(self, layer):
        self.layer = layer

    @hookimpl
    def adapterkit_methods(self):
        yield LayerMethod("mine", Config, self.layer)


def base_with(layer, model=None):
    registry = Registry(found=())
    registry.add(Plugin(layer))
    return Base(model or tiny_llama(), registry=registry)


def adapter_of(base, *, extra=()):
    method = base.registry.method("mine")
    config = base.registry.call("configure", method, config=Config(), sites=base.sites)
    stream = torch.Generator().manual_seed(0)
    layers = {site.name: Shift(site, config) for site in base.sites if site.kind == "linear" and not site.is_head}
    tensors = {f"{name}.vector": torch.randn(layer.vector.shape, generator=stream) for name, layer in layers.items()}
    tensors |= {
        f"{site.name}.{name}": site.module.weight * 0 for site in base.sites for name in extra if site.name in layers
    }
    return Adapter("mine", config, tensors, Manifest(base=base.reference))


def test_a_layer_that_cannot_be_lowered_acts_alone_and_in_a_mixed_batch(ids):
    base = base_with(Shift)
    adapter = adapter_of(base)
    mixed = base.logits(ids, adapter=[adapter, None, adapter, None])
    torch.testing.assert_close(mixed[:1], base.logits(ids[:1], adapter=adapter), **CLOSE)
    torch.testing.assert_close(mixed[1:2], base.logits(ids[1:2]), **CLOSE)
    assert not torch.allclose(mixed[:1], base.logits(ids[:1]), atol=1e-2), "the layer does nothing: the test is blind"


@pytest.mark.parametrize("rows", ["solo", "mixed"])
@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (WritesInput, "changed its input in place"),
        (WritesOutput, "changed its input in place"),
        (Forgets, "returned NoneType"),
        (Shrinks, "returned .*1"),
    ],
)
def test_a_layer_that_breaks_its_contract_is_named(ids, layer, said, rows):
    base = base_with(layer)
    adapter, bare = adapter_of(base), base.logits(ids)
    with pytest.raises(PluginError, match=rf"method 'mine' at 'model\.layers\.0.*{said}"):
        base.logits(ids, adapter=adapter if rows == "solo" else [adapter, None, None, adapter])
    assert torch.equal(base.model(ids).logits, bare)


def test_an_output_of_another_dtype_is_brought_back_whether_alone_or_mixed(ids):
    base = base_with(Widens)
    adapter = adapter_of(base)
    mixed = base.logits(ids[:2], adapter=[adapter, None])
    torch.testing.assert_close(mixed[:1], base.logits(ids[:1], adapter=adapter), **CLOSE)
    assert mixed.dtype == torch.float32


def test_a_layer_that_raises_leaves_the_base_in_order(ids):
    base = base_with(Raises)
    adapter, bare, before = adapter_of(base), base.logits(ids), state_digest(base.model)
    for chosen in (adapter, [adapter, None, None, adapter]):
        with pytest.raises(RuntimeError, match="in the middle of it"):
            base.logits(ids, adapter=chosen)
    base.use(adapter)
    with pytest.raises(RuntimeError, match="in the middle of it"):
        base.model(ids)
    base.use(None)
    assert torch.equal(base.model(ids).logits, bare)
    assert state_digest(base.model) == before


@pytest.mark.parametrize(("layer", "extra"), [(HoldsModule, "inner.weight"), (HoldsWeight, "weight")])
def test_a_layer_that_holds_a_part_of_the_base_is_refused_before_a_file_can_replace_it(ids, layer, extra):
    base = base_with(layer)
    before, bare = state_digest(base.model), base.logits(ids)
    with pytest.raises(PluginError, match="holds a module or a tensor of the base"):
        base.load(adapter_of(base, extra=(extra,)))
    method = base.registry.method("mine")
    with pytest.raises(PluginError, match="holds a module or a tensor of the base"):
        flatten(build_layers(base.registry, method, Config(), base.sites))
    assert state_digest(base.model) == before
    assert torch.equal(base.logits(ids), bare)


def test_layers_act_in_inference_mode_and_under_a_compiler(ids):
    base = base_with(Shift)
    adapter = adapter_of(base)
    want = base.logits(ids, adapter=adapter)
    with torch.inference_mode():
        torch.testing.assert_close(base.logits(ids, adapter=adapter), want, **CLOSE)
    base.use(adapter)
    compiled = torch.compile(base.model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(ids, use_cache=False).logits, want, **CLOSE)


class LiesAboutEffects(Shift):
    def lower(self):
        return (Bias(self.vector),)


class KeepsMore(LayerMethod):
    def finish(self, config, layers):
        for layer in layers.values():
            layer.extra = nn.Parameter(torch.zeros(2))
        return config, layers


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: LayerMethod("shift", Config, LiesAboutEffects), "lowers to Bias, and its traits name no effects"),
        (
            lambda: KeepsMore("shift", Config, Shift),
            r"would keep other tensors than it builds again: .*\.extra is \(2,\)",
        ),
    ],
)
def test_what_could_not_be_kept_is_found_before_a_step_is_taken(make, reason, tmp_path):
    class Plugin:
        @hookimpl
        def adapterkit_methods(self):
            return (make(),)

    plugins = Registry()
    plugins.add(Plugin())
    base = Base(EXAMPLE_BASE, registry=plugins)
    with pytest.raises(PluginError, match=reason):
        base.train([{"prompt": "a", "completion": "b"}], method="shift", output=tmp_path)
    assert not (tmp_path / "log.jsonl").exists()
