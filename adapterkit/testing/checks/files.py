"""Files: an adapter is what is in its folder, and the folder holds the adapter alone."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import attrs
import torch
from safetensors import safe_open

from adapterkit.adapter import Adapter
from adapterkit.artifact.layout import CARD, MANIFEST, PEFT_CONFIG, WEIGHTS
from adapterkit.base import Base
from adapterkit.errors import ArtifactError
from adapterkit.resident import build_layers, expected_tensors, flatten
from adapterkit.testing.comparing import answers, bits, changed, digest_of_state, own_plan
from adapterkit.testing.fresh import digest_of_answers, elsewhere
from adapterkit.testing.models import tiny_llama
from adapterkit.testing.outcomes import CheckFailed, require
from adapterkit.testing.words import some_ids, tiny_tokenizer

if TYPE_CHECKING:
    from adapterkit.testing.subject import Subject

__all__ = [
    "a_fresh_process_answers_the_same",
    "another_base_refuses_the_adapter",
    "building_without_memory_tells_the_shapes",
    "nothing_is_hidden_from_the_file",
    "saved_and_loaded_is_the_same",
    "the_folder_holds_the_adapter_alone",
]


def building_without_memory_tells_the_shapes(subject: Subject) -> None:
    """On torch's meta device ``build`` makes the same tensors, of the same shapes, as it does in memory, and makes none in memory.

    It is called so to learn what a stranger's file must hold, before a byte of it is read. What is computed in ``build``, and
    not saved, is lost there: a buffer must be persistent, or be computed in ``forward``.
    """
    base = subject.base()
    config = subject.config(base)
    real = {name: tuple(tensor.shape) for name, tensor in flatten(subject.layers(base)).items()}
    expected = expected_tensors(subject.registry, subject.method, config, base.sites)
    different = sorted(name for name in {*real, *expected} if real.get(name) != expected.get(name))
    require(not different, f"on the meta device, build makes other tensors than in memory: {', '.join(different[:3])}")
    with torch.device("meta"):
        layers = build_layers(subject.registry, subject.method, config, base.sites)
    placed = [
        f"{site}.{name}"
        for site, layer in layers.items()
        for name, tensor in (*layer.named_parameters(), *layer.named_buffers())
        if tensor.device.type != "meta"
    ]
    require(
        not placed,
        f"build puts {', '.join(placed[:3])} into memory whatever the device is: make tensors with torch alone",
    )
    # by identity, not by name: a layer may call its tensors otherwise in files
    kept = {id(tensor) for layer in layers.values() for tensor in layer.state_dict(keep_vars=True).values()}
    lost = [
        f"{site}.{name}" for site, layer in layers.items() for name, one in layer.named_buffers() if id(one) not in kept
    ]
    require(not lost, f"the buffer {', '.join(lost[:2])} is not persistent, and is gone when the adapter is loaded")


def nothing_is_hidden_from_the_file(subject: Subject) -> None:
    """Layers that ``build`` makes anew, with the saved tensors, act as the trained layers did, to the bit.

    What a layer knows beside its parameters and persistent buffers, such as a number that ``initialize`` worked out, is not
    saved, and the adapter answers otherwise when it is loaded.
    """
    base, ids = subject.base(), some_ids()
    seen = subject.train(base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)  # another seed: what is drawn in build and not saved differs
        again = build_layers(subject.registry, subject.method, seen.adapter.config, base.sites)
    for site, layer in again.items():
        mine = {name: seen.adapter.tensors[f"{site}.{name}"] for name in layer.state_dict()}
        layer.load_state_dict(copy.deepcopy(mine))
    same = torch.equal(
        answers(base, own_plan(subject.name, dict(again.eval().items())), ids),
        answers(base, own_plan(subject.name, seen.kept), ids),
    )
    require(
        same,
        "layers that are built anew from the saved tensors act otherwise than those that were trained: something is kept in a "
        "plain attribute. Put it into the configuration, a parameter or a persistent buffer",
    )


def saved_and_loaded_is_the_same(subject: Subject) -> None:
    """An adapter that is saved and loaded has the same bits, configuration, digest and answers; saved twice, the same bytes.

    ``to_file`` and ``from_file`` are each other's inverse, and so are ``to_peft`` and ``from_peft``.
    """
    base, ids, adapter = subject.base(), some_ids(), subject.adapter()
    want = base.logits(ids, adapter=adapter)
    base.unload(adapter)
    folders = [adapter.save(subject.folder / "adapter", registry=subject.registry) for _ in range(2)]
    one, other = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    require(one == other, f"saved twice, {', '.join(changed(one, other))} has other bytes")
    loaded = Adapter.load(folders[0], registry=subject.registry)
    tensors = {name: bits(tensor) for name, tensor in adapter.tensors.items()}
    different = changed(tensors, {name: bits(tensor) for name, tensor in loaded.tensors.items()})
    require(
        not different,
        f"{', '.join(different[:3])} has other bits after it was saved and loaded: see to_file and from_file",
    )
    require(loaded == adapter, f"the configuration is another one after it was saved and loaded: {loaded.config}")
    base.load(loaded)
    require(
        torch.equal(base.logits(ids, adapter=loaded), want),
        "the adapter answers otherwise after it was saved and loaded",
    )


def a_fresh_process_answers_the_same(subject: Subject) -> None:
    """Another process that loads the saved adapter gives the same answers, to the bit.

    It has its own random state and its own hashes of texts, and has trained nothing: what the method remembers beside its
    files is not there.
    """
    found = elsewhere(subject)
    require(not found.error, f"a fresh process cannot load the adapter: {found.error}")
    base = subject.base(folder=True)
    require(
        found.digest == digest_of_answers(base.logits(some_ids(), adapter=subject.adapter())),
        "a fresh process answers otherwise: the layers depend on something that is not in the files, such as hash(), a set's "
        "order, a random number that is drawn in build, or what was trained before",
    )


def the_folder_holds_the_adapter_alone(subject: Subject) -> None:
    """The folder holds text and one safetensors file, and that holds the adapter's tensors: none of the base's, and no pickle.

    An adapter is published and kept in thousands; a copy of base weights in each would be large, and is often not ours to give.
    """
    base, adapter = subject.base(), subject.adapter()
    folder = adapter.save(subject.folder / "adapter", registry=subject.registry)
    strange = {path.name for path in folder.iterdir()} - {WEIGHTS, MANIFEST, PEFT_CONFIG, CARD}
    require(not strange, f"the folder holds {', '.join(sorted(strange))}")
    with safe_open(folder / WEIGHTS, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    numbers = sum(tensor.numel() for tensor in tensors.values())
    if not (folder / PEFT_CONFIG).exists():  # PEFT's own form may hold more, such as what it projects by
        require(numbers == adapter.parameters, f"the file holds {numbers} numbers, the adapter {adapter.parameters}")
    of_base = {bits(one.float()): name for name, one in base.model.named_parameters() if one.is_floating_point()}
    for name, tensor in tensors.items():
        owner = of_base.get(bits(tensor.float())) if tensor.unique().numel() > 1 else None
        require(
            owner is None,
            f"{name} is the base's own {owner}: keep it out of the layer, or in a buffer with persistent=False",
        )


def another_base_refuses_the_adapter(subject: Subject) -> None:
    """An adapter for a base of other sizes is refused before anything of it is copied, and that base stays as it is.

    Even where the file does not say which base it is for, as PEFT's do not: its tensors' names and shapes tell.
    """
    adapter = subject.adapter()
    nameless = attrs.evolve(adapter, manifest=attrs.evolve(adapter.manifest, base=type(adapter.manifest.base)()))
    other = tiny_llama(seed=1, vocab_size=101, hidden_size=48, num_hidden_layers=1)
    base = Base(other, tokenizer=tiny_tokenizer(), registry=subject.registry)
    before = digest_of_state(base.model)
    for one in (adapter, nameless):
        try:
            base.load(one)
        except ArtifactError:
            continue
        raise CheckFailed(
            "an adapter of a base with other widths, another vocabulary and fewer layers is taken: give each layer the shapes of "
            "its site"
        )
    require(not base.resident, "the base holds an adapter that it refused")
    different = changed(before, digest_of_state(base.model))
    require(not different, f"a refused adapter changes the base: {', '.join(different[:3])}")
