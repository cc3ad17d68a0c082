"""Blends where adapters are used: rows of a batch, threads, `use` and `unload`, other precisions, and what people call."""

import copy
import threading

import pytest
import torch

from adapterkit import Base, Blend, SelectionError, Stack
from adapterkit.shared import MOST_COMPOSED
from adapterkit.testing import tiny_llama
from tests.runtime.definition import AT_INPUT, CLOSE, METHODS, a_base, defined, made
from tests.support import FAMILIES, make_adapter

# -- rows, threads and what is kept -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_blends_are_answered_as_alone(family):
    base = a_base(FAMILIES[family]())
    adapters = {name: (made(base, name), made(base, name, seed=1)) for name in METHODS}
    lora, dora, full = (adapters[name][0] for name in ("lora", "dora", "full"))
    prompt, prefix, ia3 = (adapters[name][0] for name in ("prompt_tuning", "prefix_tuning", "peft:ia3"))
    chosen = [
        Blend({lora: 0.7, adapters["qlora"][0]: -0.3}),
        Stack(prompt, lora, adapters["prompt_tuning"][1]),
        adapters["lora"][1],
        None,
        Stack(prefix, dora),
        Blend({full: 0.5, ia3: 0.5}),
        Blend({lora: 0.7, adapters["qlora"][0]: -0.3}),
        prompt,
        adapters["own_layers"][0],
    ]
    ids = torch.randint(1, 97, (len(chosen), 7), generator=torch.Generator().manual_seed(1))
    mixed = base.logits(ids, adapter=chosen)
    for row, one in enumerate(chosen):
        torch.testing.assert_close(mixed[row : row + 1], base.logits(ids[row : row + 1], adapter=one), **CLOSE)


def test_threads_use_blends_at_once(llama, ids):
    a, b = (make_adapter(llama, seed=seed, rank=4) for seed in range(2))
    blends = [Blend({a: 0.5, b: weight}) for weight in (1.0, -1.0, 0.3)]
    expected = [a_base(tiny_llama()).logits(ids, adapter=one) for one in blends]
    wrong, barrier = [], threading.Barrier(len(blends))

    def work(number):
        barrier.wait()
        got = [llama.logits(ids, adapter=blends[number]) for _ in range(10)]
        wrong.extend(number for one in got if not torch.allclose(one, expected[number], atol=1e-5))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(blends))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_blend_is_used_as_an_adapter_is(llama, ids):
    a, b = (make_adapter(llama, seed=seed, rank=4) for seed in range(2))
    blend, bare = Blend({a: 0.6, b: -0.4}), llama.logits(ids)
    want = llama.logits(ids, adapter=blend)
    assert set(llama.resident) == {a, b}
    llama.use(blend)
    assert llama.active == blend
    assert torch.equal(llama.model(ids).logits, want)
    with llama.using(Stack(a, b)):
        assert llama.active == Stack(a, b)
        assert not torch.allclose(llama.model(ids).logits, want, atol=1e-3)
    assert torch.equal(llama.model(ids).logits, want)
    llama.use(None)
    assert torch.equal(llama.model(ids).logits, bare)


def test_who_unloads_a_part_unloads_its_blends(llama, ids):
    a, b, c = (make_adapter(llama, seed=seed, rank=4) for seed in range(3))
    blend, other, bare = Stack(a, b), Stack(a, c), llama.logits(ids)
    llama.load(other)
    llama.use(blend)
    llama.unload(b)
    assert llama.active is None
    assert torch.equal(llama.model(ids).logits, bare)
    assert set(llama.resident) == {a, c}
    with pytest.raises(SelectionError, match="is not resident"):
        llama.unload(blend)
    llama.unload(other)
    assert set(llama.resident) == {a, c}
    llama.use(blend)
    assert set(llama.resident) == {a, b, c}
    llama.unload(blend)
    assert llama.active is None
    assert set(llama.resident) == {a, b, c}


def test_only_so_many_blends_are_kept(llama, ids):
    a, b = (make_adapter(llama, seed=seed, rank=2) for seed in range(2))
    first = Blend({a: 0.5, b: 0.5})
    want = llama.logits(ids, adapter=first)
    llama.use(first)
    for number in range(MOST_COMPOSED + 3):
        llama.load(Blend({a: 1.0, b: float(number)}))
    assert len(llama._composed) == MOST_COMPOSED
    assert llama.active == first
    assert torch.equal(llama.model(ids).logits, want)
    llama.unload(first)
    assert llama.active is None
    assert torch.equal(llama.logits(ids, adapter=first), want)


def test_detaching_forgets_blends(llama, ids):
    a, b = (make_adapter(llama, seed=seed, rank=2) for seed in range(2))
    llama.use(Stack(a, b))
    llama.detach()
    assert llama.active is None
    assert llama._composed == {}


def test_a_part_for_another_base_is_refused(llama):
    good, stranger = make_adapter(llama), make_adapter(Base(tiny_llama(seed=1)))
    with pytest.raises(ValueError, match="was made for another base"):
        llama.load(Stack(good, stranger))
    with pytest.raises(ValueError, match="was made for another base"):
        llama.use(Stack(good, stranger))
    assert llama.active is None


def test_a_weight_that_is_too_large_is_refused(llama, ids):
    half = Base(tiny_llama().half())
    for base, weight in ((llama, 1e39), (half, 1e6)):
        a, b = make_adapter(base, rank=2), make_adapter(base, rank=2, seed=1)
        with pytest.raises(SelectionError, match="too large"):
            base.load(Blend({a: weight, b: 1.0}))
        assert base.logits(ids, adapter=[a, Stack(a, b), None, b]).isfinite().all()


# -- precisions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [("lora", "qlora"), ("lora", "full"), ("dora", "peft:ia3"), ("tokens", "prefix_tuning")]
)
def test_on_a_base_in_bfloat16(names, ids):
    model = tiny_llama().bfloat16()
    twin = copy.deepcopy(model).double()
    base = a_base(model)
    parts = [(made(base, name), 1.0 if name in AT_INPUT else 0.6) for name in names]
    got, want = base.logits(ids, adapter=Blend(dict(parts))).double(), defined(base, twin, parts, ids)
    assert float((got - want).norm() / want.norm()) < 0.03
    assert float((base.logits(ids).double() - want).norm() / want.norm()) > 0.2, (
        "the adapters do little: the test is blind"
    )


@pytest.mark.parametrize(
    "names", [("lora", "dora"), ("lora", "peft:ia3"), ("tokens", "prompt_tuning"), ("qlora", "peft:loha")]
)
def test_on_a_quantized_base(names, ids, tmp_path):
    pytest.importorskip("bitsandbytes")
    tiny_llama().save_pretrained(tmp_path)
    base = a_base(tmp_path, quantize="nf4", device="cpu", dtype="float32", tokenizer=object())
    twin = tiny_llama().double()
    with torch.no_grad():
        for site in base.sites:
            if site.is_quantized:
                twin.get_parameter(f"{site.name}.weight").copy_(site.dense_weight())
    parts = [(made(base, name), 1.0 if name in AT_INPUT else -0.6) for name in names]
    got = base.logits(ids, adapter=Blend(dict(parts))).double()
    torch.testing.assert_close(got, defined(base, twin, parts, ids), atol=1e-3, rtol=1e-3)


def test_a_bridged_method_without_effects_says_no_on_a_quantized_base(ids, tmp_path):
    pytest.importorskip("bitsandbytes")
    tiny_llama().save_pretrained(tmp_path)
    base = a_base(tmp_path, quantize="nf4", device="cpu", dtype="float32", tokenizer=object())
    oft, lora = made(base, "peft:oft"), made(base, "lora")
    with pytest.raises(SelectionError, match="'peft:oft' acts through its own layers and not by effects"):
        base.logits(ids, adapter=Stack(oft, lora))
    assert base.logits(ids, adapter=[oft, lora, None, oft]).isfinite().all()


# -- what people call -------------------------------------------------------------------------------------------------


def test_generate_evaluate_and_compare_take_blends(example_base):
    a, b = (make_adapter(example_base, seed=seed, rank=4, scale=0.3) for seed in range(2))
    blend, prompts = Blend({a: 0.5, b: -0.5}), ["Say one", "Say two"]
    options = {"max_new_tokens": 5, "temperature": 0.0}
    alone = [
        example_base.generate(prompt, adapter=one, **options) for prompt, one in zip(prompts, (blend, a), strict=True)
    ]
    assert example_base.generate(prompts, adapter=[blend, a], **options) == alone
    rows = [{"prompt": "Say one", "completion": "one"}, {"prompt": "Say two", "completion": "two"}]
    own = example_base.evaluate(rows, adapter=blend)
    both = example_base.compare(rows, {"blend": blend, "a": a})
    assert both["blend"]["loss"] == pytest.approx(own["loss"], rel=1e-5)
    assert both["a"]["loss"] != pytest.approx(own["loss"], rel=1e-3)
    for one in (a, b):
        example_base.unload(one)
