"""The base: where it comes from, what it becomes resident with, and that nothing takes it unawares."""

import json
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers

from adapterkit import AdapterkitError, ArtifactError, Base, BaseLoadError, SelectionError, TargetError
from adapterkit.base import ACTIVE
from adapterkit.testing import tiny_gpt2, tiny_llama
from tests.artifact.adapter_folders import CONFIG, WEIGHTS, add_tensor, edit_config, edit_header, first, rename_tensor
from tests.support import EXAMPLE_BASE, make_adapter, state_digest


@pytest.fixture
def folder(tmp_path):
    """A base as a folder, small enough to load at every turn."""
    tiny_llama(vocab_size=8192).save_pretrained(tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(EXAMPLE_BASE / name, tmp_path / "base" / name)
    return tmp_path / "base"


def hooks_of(model):
    return [hook for module in model.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]


# -- loading ----------------------------------------------------------------------------------------------------------


def test_nothing_is_loaded_before_it_is_needed(folder):
    base = Base(folder)
    assert repr(base) == f"<Base {folder}: 0 adapters resident, none in use>"
    assert "_loaded" not in vars(base)
    assert base.model.config.vocab_size == 8192
    assert "_loaded" in vars(base)


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("no/such/folder", r"no folder 'no/such/folder'; a base is a folder, a Hub id such as 'org/model'"),
        ("./nothing", "no folder './nothing'"),
        ("", "holds no model: it has no config.json"),
        (None, "not NoneType"),
        (torch.nn.Linear(2, 2), "not Linear"),
    ],
)
def test_a_base_that_is_not_there_is_an_error_when_it_is_needed(location, said):
    base = Base(location)
    for use in (lambda: base.model, lambda: base.sites, lambda: base.logits(torch.ones(1, 2, dtype=torch.long))):
        with pytest.raises(BaseLoadError, match=said):
            use()


def test_a_folder_may_be_given_as_text_or_as_a_path(folder):
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(Base(folder).logits(ids), Base(str(folder)).logits(ids))
    assert Base(folder).reference == Base(str(folder)).reference


def test_a_folder_and_the_model_object_of_it_are_one_base(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    adapter = make_adapter(Base(folder))
    assert Base(model).load(adapter) == adapter


def test_an_adapters_folder_is_not_taken_for_a_base(folder, tmp_path):
    adapter = make_adapter(Base(folder)).save(tmp_path / "adapter")
    with pytest.raises(BaseLoadError, match=r"holds an adapter, not a base; load its base and then Base\.load"):
        _ = Base(adapter).model


def test_a_model_that_peft_has_wrapped_is_refused():
    import peft

    wrapped = peft.get_peft_model(tiny_llama(), peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    with pytest.raises(BaseLoadError, match=r"has PEFT adapters in it.*\.unload\(\)"):
        _ = Base(wrapped).model
    assert Base(wrapped.unload()).sites


@pytest.mark.parametrize(("dtype", "got"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_dtype_is_the_one_asked_for(folder, dtype, got):
    base = Base(folder, dtype=dtype, device="cpu")
    assert base.model.dtype == got
    assert base.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": "float64"}, "dtype 'float64' is not one of auto, float32"),
        ({"device": "warp"}, "device 'warp' is not there"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not there"),
    ],
)
def test_a_dtype_or_device_that_is_not_there_is_named(folder, options, said):
    with pytest.raises(BaseLoadError, match=said):
        _ = Base(folder, **options).model


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"device": "cpu"}, {"revision": "v1"}])
def test_options_that_would_do_nothing_for_a_model_object_are_refused(options):
    with pytest.raises(BaseLoadError, match="a model object is used as it is"):
        _ = Base(tiny_llama(), **options).model


def test_the_revision_of_a_hub_id_is_what_is_asked_of_the_hub(folder, monkeypatch):
    asked = []

    def from_pretrained(kind, original):
        def load(name, *arguments, **options):
            asked.append((kind, name, options["revision"], options["trust_remote_code"]))
            return original(folder, *arguments, **{k: v for k, v in options.items() if k != "revision"})

        return load

    for kind in (transformers.AutoModelForCausalLM, transformers.AutoTokenizer):
        monkeypatch.setattr(kind, "from_pretrained", from_pretrained(kind.__name__, kind.from_pretrained))
    assert Base("org/model", revision="abc123").tokenizer is not None
    assert asked == [
        ("AutoModelForCausalLM", "org/model", "abc123", False),
        ("AutoTokenizer", "org/model", "abc123", False),
    ]


def edit_base(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def cut_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: edit_base(folder, num_hidden_layers=3), r"lacks 9 of the weights .* they would be random"),
        (lambda folder: edit_base(folder, hidden_size=64), "cannot be loaded"),
        (lambda folder: edit_base(folder, model_type="nonsense"), "cannot be loaded: .*nonsense"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a valid JSON file"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"no file named model\.safetensors"),
        (cut_weights, "cannot be loaded: .*header"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "cannot be loaded"),
    ],
    ids=["more layers", "other shapes", "unknown type", "bad JSON", "no weights", "cut off", "no tokenizer"],
)
def test_a_damaged_base_is_refused_and_never_filled_up_with_random_weights(folder, damage, said):
    damage(folder)
    with pytest.raises(BaseLoadError, match=said):
        _ = Base(folder).model


def test_loading_draws_no_bar_where_there_is_no_terminal_and_keeps_the_setting(folder, capfd):
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    _ = Base(folder).model
    assert capfd.readouterr().err == ""
    assert logging.is_progress_bar_enabled() == before


def test_loading_draws_a_bar_on_a_terminal(folder, capfd, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _ = Base(folder).model
    assert "Loading weights" in capfd.readouterr().err


def test_a_bar_that_the_user_has_turned_off_stays_off(folder):
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        _ = Base(folder).model
        assert not logging.is_progress_bar_enabled()
    finally:
        logging.enable_progress_bar()


def test_a_model_object_without_a_tokenizer_says_what_it_needs(llama, ids):
    assert llama.logits(ids).shape == (4, 11, 97)
    with pytest.raises(SelectionError, match=r"has no tokenizer; give one: Base\(model, tokenizer=\.\.\.\)"):
        llama.generate("hello")


# -- a model object is borrowed ---------------------------------------------------------------------------------------


def test_detaching_gives_the_model_back_as_it_was(ids):
    model = tiny_gpt2().train()
    frozen = model.transformer.wpe.weight.requires_grad_(requires_grad=False)
    model.transformer.h[0].eval()
    before, training = state_digest(model), [module.training for module in model.modules()]
    base = Base(model)
    base.use(make_adapter(base))
    assert not any(parameter.requires_grad for parameter in model.parameters())
    base.detach()
    assert [module.training for module in model.modules()] == training
    assert [p for p in model.parameters() if not p.requires_grad] == [frozen]
    assert state_digest(model) == before
    assert hooks_of(model) == []
    assert (base.resident, base.active) == ((), None)


def test_a_detached_base_becomes_one_again_and_knows_if_its_weights_were_changed_meanwhile(ids):
    model = tiny_llama()
    base = Base(model)
    adapter = make_adapter(base)
    base.detach()
    assert base.load(adapter) == adapter
    assert not any(parameter.requires_grad for parameter in model.parameters())
    base.detach()
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    with pytest.raises(ArtifactError, match="another base"):
        base.load(adapter)


def test_two_bases_on_one_model_object_are_refused_as_each_would_answer_with_the_others_adapters(ids):
    model = tiny_llama()
    first_base, second = Base(model), Base(model)
    first_base.use(make_adapter(first_base))
    with pytest.raises(BaseLoadError, match="in use by another Base"):
        second.logits(ids)
    first_base.detach()
    assert second.logits(ids).shape == (4, 11, 97)


def test_a_base_that_is_gone_leaves_its_model_free(ids):
    model, bare = tiny_llama(), Base(tiny_llama()).logits(ids)
    gone = Base(model)
    gone.use(make_adapter(gone))
    del gone
    base = Base(model)
    assert torch.equal(base.model(ids).logits, bare)
    count = len(hooks_of(model))
    base.detach()
    assert count > 0
    assert hooks_of(model) == []


def test_a_copy_of_a_bases_model_is_a_base_of_its_own(llama, ids):
    import copy

    adapter, bare = make_adapter(llama), llama.logits(ids)
    llama.use(adapter)
    other = Base(copy.deepcopy(llama.model))
    assert torch.equal(other.model(ids).logits, bare)
    assert torch.equal(llama.model(ids).logits, llama.logits(ids, adapter=adapter))


# -- adapters in memory -----------------------------------------------------------------------------------------------


def test_loading_an_adapter_twice_holds_it_once(llama, tmp_path):
    adapter = make_adapter(llama)
    folder = adapter.save(tmp_path / "adapter")
    assert llama.load(adapter) == llama.load(folder) == llama.load(str(folder)) == adapter
    assert llama.resident == (adapter,)
    llama.unload(adapter)
    assert llama.resident == ()
    with pytest.raises(SelectionError, match="is not resident on this base"):
        llama.unload(adapter)


def test_what_is_no_adapter_is_refused(llama, ids):
    adapter = make_adapter(llama)
    for wrong in ("cards", 3, [adapter, "cards"], [[adapter], None], {adapter: 1.0}, ()):
        with pytest.raises(SelectionError, match="adapter"), llama.using(wrong):
            pass
    assert (llama.active, llama.runtime.plan) == (None, None)


def test_an_exception_inside_using_ends_it(llama, ids):
    adapter = make_adapter(llama)
    for error in (RuntimeError, KeyboardInterrupt, GeneratorExit):
        with pytest.raises(error), llama.using(adapter):
            raise error
        assert (llama.active, llama.runtime.plan) == (None, None)
    assert llama._override.get() is ACTIVE


def test_eight_threads_that_load_one_adapter_make_one_resident(folder, tmp_path):
    base = Base(folder)
    saved = make_adapter(Base(folder)).save(tmp_path / "adapter")
    barrier = threading.Barrier(8)

    def work():
        barrier.wait()
        base.use(base.load(saved))

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work) for _ in range(8)]:
            done.result()
    assert len(base.resident) == 1
    assert len(base.model._forward_pre_hooks) == 1, "the sites were installed more than once"
    assert base.runtime.active is base._residents[base.active.digest].plan


def test_what_is_computed_once_is_computed_once_by_many_threads(monkeypatch):
    # functools.cached_property computes it once for each thread since Python 3.12: two models, hooks on the wrong one
    calls, barrier = [], threading.Barrier(4)
    from adapterkit import shared as module

    original = module.load_base

    def slow(source):
        calls.append(source)
        time.sleep(0.05)
        return original(source)

    monkeypatch.setattr(module, "load_base", slow)
    base, seen = Base(tiny_llama()), []

    def work():
        barrier.wait()
        seen.append(base.model)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert all(model is base.model for model in seen)


def test_residents_can_be_listed_while_another_thread_loads(llama):
    adapters = [make_adapter(llama, rank=1, seed=seed, target_modules=["q_proj"]) for seed in range(60)]
    done = threading.Event()

    def work():
        for adapter in adapters:
            llama.load(adapter)
        done.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        while not done.is_set():
            _ = llama.resident
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(llama.resident) == 60


# -- hostile adapters -------------------------------------------------------------------------------------------------


def stock(step):
    """The damage, to a folder in which nothing proves anything."""

    def damage(folder):
        (folder / "adapterkit.json").unlink()
        step(folder)

    return damage


HOSTILE = {
    "damaged": lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-4] + b"\0\0\0\1"),
    "edited configuration": edit_config(lora_alpha=4096),
    "a weight of the base": stock(add_tensor("base_model.model.model.layers.0.self_attn.q_proj.weight")),
    "an embedding": stock(add_tensor("base_model.model.model.embed_tokens.weight")),
    "another layer": stock(rename_tensor(lambda name: name.replace("layers.0", "layers.7"))),
    "another shape": stock(edit_header(lambda header: header[first(header)].update(shape=[2, 64]))),
    "half of it": stock(edit_config(target_modules=["q_proj"])),
    "too much asked": stock(edit_config(target_modules=["q_proj", "v_proj", "o_proj"])),
    "no such target": stock(edit_config(target_modules=["evil"])),
    "a pattern": stock(edit_config(target_modules="(.|..|...)+\\d")),
    "huge rank": stock(edit_config(r=10**9)),
    "huge alpha": stock(edit_config(lora_alpha=1e300)),
    "another method": stock(edit_config(peft_type="EVIL")),
    "no configuration": lambda folder: (folder / CONFIG).unlink(),
}


@pytest.mark.parametrize("damage", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_folder_leaves_the_base_and_its_adapters_as_they_were(llama, ids, tmp_path, damage):
    good = make_adapter(llama, seed=1)
    llama.use(good)
    state = state_digest(llama.model)
    outputs = [llama.logits(ids), llama.logits(ids, adapter=good), llama.model(ids).logits]
    folder = make_adapter(llama, seed=2, rank=4, target_modules=["q_proj", "v_proj"]).save(tmp_path / "hostile")
    damage(folder)
    with pytest.raises(AdapterkitError):
        llama.load(folder)
    assert state_digest(llama.model) == state
    after = [llama.logits(ids), llama.logits(ids, adapter=good), llama.model(ids).logits]
    assert all(map(torch.equal, outputs, after))
    assert llama.resident == (good,)
    assert llama.active == good


def test_the_hostile_folders_are_hostile_by_their_damage_alone(llama, tmp_path):
    folder = make_adapter(llama, seed=2, rank=4, target_modules=["q_proj", "v_proj"]).save(tmp_path / "honest")
    assert llama.load(folder)
    stock(lambda _: None)(folder)
    assert llama.load(folder)


@pytest.mark.parametrize(
    ("dtype", "scale", "alpha"), [(torch.float32, 1e35, 1e6), (torch.float16, 1.0, 1e6), (torch.bfloat16, 1e34, 1e6)]
)
def test_factors_that_become_infinite_are_refused_as_they_would_reach_the_neighbours(ids, dtype, scale, alpha):
    base = Base(tiny_llama().to(dtype))
    wild = make_adapter(base, rank=1, scale=scale, alpha=alpha, seed=2)
    with pytest.raises(ArtifactError, match="too large for the base's torch"):
        base.logits(ids[:2], adapter=[make_adapter(base, rank=4, seed=1), wild])
    assert wild not in base.resident


def test_an_adapter_of_another_architecture_is_refused(llama):
    with pytest.raises(ArtifactError, match="another base"):
        llama.load(make_adapter(Base(tiny_gpt2())))
    with pytest.raises(TargetError):
        make_adapter(llama, target_modules=["c_attn"])
