"""Several adapters at once: every pair of methods acts as its definition says, or is refused with the reason."""

import copy
import itertools

import pytest
import torch

from adapterkit import Blend, SelectionError, Stack
from adapterkit.registry import default_registry
from adapterkit.testing import tiny_llama, tiny_moe
from tests.runtime.definition import ALONE, AT_INPUT, CLOSE, METHODS, a_base, defined, effects_on, made
from tests.support import FAMILIES, make_adapter, state_digest

PAIRS = list(itertools.combinations_with_replacement(METHODS, 2))
BUNDLED = sorted(method.name for method in default_registry().methods() if method.traits.effects)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """A base, two adapters of each method, and a copy of the model that no adapter ever acts on."""
    model = FAMILIES[request.param]()
    twin = copy.deepcopy(model).double()
    base = a_base(model)
    return base, {name: (made(base, name), made(base, name, seed=1)) for name in METHODS}, twin


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_every_pair_of_methods_composes_or_is_refused_with_the_reason(family, one, other, ids):
    base, adapters, twin = family
    first, second = adapters[one][0], adapters[other][1]
    parts = [(first, 1.0 if one in AT_INPUT else 0.7), (second, 1.0 if other in AT_INPUT else -0.6)]
    if {one, other} & set(ALONE):
        with pytest.raises(SelectionError, match="'own_layers' acts through its own layers and not by effects"):
            base.logits(ids, adapter=Blend(dict(parts)))
        return
    got = base.logits(ids, adapter=Blend(dict(parts)))
    torch.testing.assert_close(got.double(), defined(base, twin, parts, ids), **CLOSE)
    alone = base.logits(ids, adapter=first)
    assert not torch.allclose(got, alone, atol=1e-3), "the second adapter does nothing: the test is blind"


@pytest.fixture(scope="module")
def beside_lora():
    base, twin = a_base(tiny_llama()), tiny_llama().double()
    return base, made(base, "lora"), twin


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_method_composes_with_lora(beside_lora, name, ids):
    base, lora, twin = beside_lora
    other = make_adapter(base, method=name, seed=1, scale=0.1)
    parts = [
        (lora, 0.5),
        (other, 1.0 if set(base.registry.method(name).traits.effects) & {"Tokens", "PrefixKV"} else -0.5),
    ]
    got = base.logits(ids, adapter=Blend(dict(parts))).double()
    want = defined(base, twin, parts, ids)
    torch.testing.assert_close(got, want, **CLOSE)
    base.unload(other)


def test_fused_experts_compose(ids):
    model = tiny_moe()
    twin, base = copy.deepcopy(model).double(), a_base(model)
    twin.set_experts_implementation("eager")  # the others know no float64
    fused = [f"experts.{name}" for name in ("gate_up_proj", "down_proj")]
    experts = make_adapter(base, rank=2, target_modules=("q_proj",), target_parameters=fused)
    parts = [(experts, 0.5), (make_adapter(base, method="full", scale=0.02), -0.7), (made(base, "dora"), 0.3)]
    got = base.logits(ids, adapter=Blend(dict(parts))).double()
    torch.testing.assert_close(got, defined(base, twin, parts, ids), **CLOSE)


@pytest.mark.parametrize("name", METHODS)
def test_one_adapter_in_a_stack_acts_as_it_does_alone(family, name, ids):
    base, adapters, _ = family
    assert torch.equal(base.logits(ids, adapter=Stack(adapters[name][0])), base.logits(ids, adapter=adapters[name][0]))


def test_the_base_keeps_every_bit(family, ids):
    base, adapters, twin = family
    before = state_digest(base.model)
    for name in set(METHODS) - set(ALONE):
        base.logits(ids, adapter=Stack(*adapters[name]))
    assert state_digest(base.model) == before
    fresh = copy.deepcopy(twin).float()
    with torch.no_grad():
        assert torch.equal(base.logits(ids), fresh(ids).logits)


def test_many_at_once_are_their_definition(family, ids):
    base, adapters, twin = family
    names = ["lora", "dora", "tokens", "qlora", "full", "peft:ia3", "prompt_tuning", "prefix_tuning", "peft:oft"]
    weights = [0.5, -0.25, 1.5, 0.3, -0.4, 0.8, 1.0, 1.0, 0.2]
    parts = [(adapters[name][0], weight) for name, weight in zip(names, weights, strict=True)]
    got = base.logits(ids, adapter=Blend(dict(parts)))
    torch.testing.assert_close(got.double(), defined(base, twin, parts, ids), **CLOSE)


def test_the_order_of_changes_of_weights_does_not_matter(family, ids):
    base, adapters, _ = family
    parts = [(adapters[name][0], 0.5) for name in ("lora", "dora", "full", "peft:ia3", "tokens")]
    there, back = (base.logits(ids, adapter=Blend(dict(order))) for order in (parts, parts[::-1]))
    torch.testing.assert_close(there, back, **CLOSE)


@pytest.mark.parametrize("name", AT_INPUT)
def test_soft_prompts_and_prefixes_stand_in_the_order_of_the_parts(family, name, ids):
    base, adapters, twin = family
    a, b = adapters[name]
    there, back = base.logits(ids, adapter=Stack(a, b)), base.logits(ids, adapter=Stack(b, a))
    torch.testing.assert_close(there.double(), defined(base, twin, [(a, 1.0), (b, 1.0)], ids), **CLOSE)
    torch.testing.assert_close(back.double(), defined(base, twin, [(b, 1.0), (a, 1.0)], ids), **CLOSE)
    if name == "prompt_tuning":  # a prefix has no places of its own: what is seen of it is the same in any order
        assert not torch.allclose(there, back, atol=1e-4)


@pytest.mark.parametrize("name", AT_INPUT)
@pytest.mark.parametrize("weight", [0.5, -1.0, 0.0])
def test_a_soft_prompt_has_no_weight(family, name, weight, ids):
    base, adapters, _ = family
    for blend in (Blend({adapters[name][0]: weight}), Blend({adapters[name][0]: weight, adapters["lora"][0]: 1.0})):
        with pytest.raises(SelectionError, match=f"its weight is 1, and not {weight:g}"):
            base.load(blend)
        assert base.active is None


def test_a_method_of_its_own_layers_has_no_weight(family, ids):
    base, adapters, _ = family
    with pytest.raises(SelectionError, match="not beside another adapter or with a weight"):
        base.logits(ids, adapter=Blend({adapters["own_layers"][0]: 0.5}))


def test_what_was_added_is_taken_away(family, ids):
    base, adapters, _ = family
    a, b = adapters["lora"][0], adapters["full"][0]
    both = Stack(a, b)
    torch.testing.assert_close(base.logits(ids, adapter=Blend({a: 1.0, b: 0.0})), base.logits(ids, adapter=a), **CLOSE)
    less = Blend({both: -1.0})
    assert less == Blend({a: -1.0, b: -1.0})
    torch.testing.assert_close(base.logits(ids, adapter=Blend({a: 0.0})), base.logits(ids), **CLOSE)
    changes = {site: sum(one.scale * (one.up @ one.down) for one in here) for site, here in effects_on(base, a).items()}
    site = next(iter(changes))
    module = base.model.get_submodule(site)
    x = torch.randn(3, next(one.in_features for one in base.sites if one.name == site))
    with base.using(Blend({a: -2.0})):
        got = module(x)
    with base.using(None):
        torch.testing.assert_close(got, module(x) - 2.0 * x @ changes[site].T, **CLOSE)
