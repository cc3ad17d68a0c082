"""What is known of each PEFT method: declared here, held to by the tests."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - attrs and readers of annotations need the name
from typing import Any

import attrs

__all__ = ["KINDS", "PROMPTS", "REFUSED", "Kind", "Prompt"]

LINEAR = ("linear", "conv1d")
TEN_TIMES_FULL = 2e-4
"""Where nothing else is known, an adapter begins with ten times the learning rate that all weights are trained with."""


@attrs.frozen(kw_only=True)
class Kind:
    """A method whose layers stand in for layers of the base.

    Attributes:
        about: One line for listings.
        effects: What its layers are lowered to; none means that they act themselves.
        additive: What a layer adds to the base's output depends on its input alone, not on the base's weights.
        identity: A fresh layer changes no bit.
        reads: ``"build"`` when a fresh layer is made from the base's weights, ``"forward"`` when it needs them to act, or both.
        derived: A layer holds what no file holds and PEFT computes anew: indices from a seed, factors of the base's weights.
        measured: The same, and PEFT cannot tell without memory which tensors a layer has.
        writes: A layer adds to the base's output in place.
        rows: Its layer takes ``(rows, tokens, features)`` alone.
        kinds: Which kinds of sites it acts on.
        conv1d: Whether PEFT has a layer for GPT-2's ``Conv1D``; where it has none, PEFT is shown an ``nn.Linear`` instead.
        gates: Whether it can act on a gate, a layer with one output; where not, ``"all-linear"`` leaves them out.
        targets: ``"all-linear"``, or None where PEFT says other targets for each architecture.
        fixed: Options that always have this value: another would not fit into one file, or not into a shared base.
        without: Values of options that are not offered.
        fitted: Options that are chosen to fit the targeted layers: to divide their size on one side or on both, or to be at
            most that of the input, or the number of their weights.
        shares: Its layers share tensors, and have to be made together.
        repeated: PEFT writes what all layers share once more for each of them; here it is written once, and PEFT reads it.
        defaults: Training options that suit it better than the general ones.
    """

    about: str
    effects: tuple[str, ...] = ("LowRank",)
    additive: bool = True
    identity: bool = True
    reads: tuple[str, ...] = ()
    derived: bool = False
    measured: bool = False
    writes: bool = False
    rows: bool = False
    kinds: tuple[str, ...] = LINEAR
    conv1d: bool = True
    gates: bool = True
    targets: str | None = "all-linear"
    fixed: Mapping[str, Any] = attrs.field(factory=dict)
    without: Mapping[str, tuple[Any, ...]] = attrs.field(factory=dict)
    fitted: Mapping[str, str] = attrs.field(factory=dict)
    shares: bool = False
    repeated: bool = False
    defaults: Mapping[str, Any] = attrs.field(factory=lambda: {"learning_rate": TEN_TIMES_FULL})


KINDS: dict[str, Kind] = {
    "BEFT": Kind(about="a bias on the value projections", effects=("Bias",), conv1d=False, targets=None),
    "BOFT": Kind(
        about="rotations of the weight's inputs, as products of sparse ones",
        effects=("Dense",),
        additive=False,
        identity=False,
        measured=True,
        conv1d=False,
        fitted={"boft_block_size": "in"},
    ),
    "C3A": Kind(
        about="a block-circulant update",
        gates=False,
        effects=("Dense",),
        identity=False,
        writes=True,
        conv1d=False,
        fitted={"block_size": "both"},
    ),
    "DEFT": Kind(
        about="a low-rank part of the weight is taken out and another put in",
        additive=False,
        identity=False,
        reads=("build",),
    ),
    "DELORA": Kind(about="LoRA whose strength is learned apart from its directions", reads=("build",), conv1d=False),
    "FOURIERFT": Kind(
        about="an update with few frequencies",
        effects=("Dense",),
        identity=False,
        derived=True,
        defaults={"learning_rate": 3e-3},
        fitted={"n_frequency": "most numbers"},
    ),
    "GLORA": Kind(
        about="a learned scale and shift of weight, input and bias at once",
        effects=("Dense", "Bias"),
        additive=False,
        identity=False,
        reads=("forward",),
        conv1d=False,
    ),
    "GRALORA": Kind(about="LoRA in blocks of the weight", gates=False, writes=True, fitted={"gralora_k": "both"}),
    "HIRA": Kind(
        about="the weight times a low-rank matrix, number by number",
        effects=("Dense",),
        additive=False,
        reads=("forward",),
    ),
    "HRA": Kind(
        about="Householder reflections of the weight's inputs",
        additive=False,
        identity=False,
        reads=("forward",),
        conv1d=False,
    ),
    "IA3": Kind(
        about="learned factors for keys, values and the inner features of the MLP",
        effects=("Scale",),
        additive=False,
        targets=None,
        defaults={"learning_rate": 3e-3},
    ),
    "LN_TUNING": Kind(
        about="the norms' own weights",
        effects=("Dense",),
        additive=False,
        identity=False,
        reads=("build",),
        kinds=("module",),
        targets=None,
        defaults={"learning_rate": 1e-3},
    ),
    "LOHA": Kind(about="the product, number by number, of two low-rank updates", conv1d=False),
    "LOKR": Kind(about="a Kronecker product as update", effects=("Dense",), conv1d=False),
    "LORA": Kind(about="LoRA as PEFT does it; `lora` is adapterkit's own, and has DoRA", fixed={"use_dora": False}),
    "MISS": Kind(
        about="one block of weights, shared by all parts of the input",
        conv1d=False,
        fitted={"r": "most in"},
        without={"init_weights": ("bat",)},
    ),
    "OFT": Kind(
        about="rotations of the weight's inputs, in blocks",
        effects=("Dense",),
        additive=False,
        derived=True,
        conv1d=False,
        fixed={"coft": False},
    ),
    "OSF": Kind(
        about="the small singular directions of the weight",
        gates=False,
        effects=("Dense",),
        identity=False,
        reads=("build",),
        derived=True,
        conv1d=False,
    ),
    "PEANUT": Kind(
        about="an update that a small network makes of the weight itself",
        effects=("Dense",),
        reads=("forward",),
        additive=False,
        conv1d=False,
    ),
    "POLY": Kind(
        about="LoRAs as skills, mixed by a router; one task", rows=True, writes=True, conv1d=False, fixed={"n_tasks": 1}
    ),
    "PVERA": Kind(
        about="VeRA with learned noise while it is trained",
        fixed={"save_projection": True, "sample_at_inference": False},
        defaults={"learning_rate": 4e-3},
    ),
    "RANDLORA": Kind(
        about="learned sums of fixed random low-rank updates",
        effects=("Dense",),
        fixed={"save_projection": True},
        repeated=True,
    ),
    "ROAD": Kind(
        about="rotations of pairs of outputs",
        gates=False,
        effects=("Dense", "Bias"),
        additive=False,
        conv1d=False,
        fitted={"group_size": "out"},
    ),
    "TINYLORA": Kind(
        about="a few numbers that choose among fixed directions of the weight",
        reads=("build",),
        shares=True,
        fixed={"save_projection": True},
    ),
    "UNILORA": Kind(
        about="one short vector from which every LoRA factor takes its numbers",
        identity=False,
        measured=True,
        fixed={"save_indices": False},
    ),
    "VBLORA": Kind(
        about="LoRA factors put together from one bank of vectors",
        gates=False,
        identity=False,
        fixed={"save_only_topk_weights": False},
        fitted={"vector_length": "both"},
        defaults={"learning_rate": 1e-3},
    ),
    "VERA": Kind(
        about="fixed random low-rank factors, shared by all layers, and learned scales",
        fixed={"save_projection": True},
        defaults={"learning_rate": 4e-3},
    ),
    "WAVEFT": Kind(
        about="an update with few wavelet coefficients",
        effects=("Dense",),
        derived=True,
        fitted={"n_frequency": "most numbers"},
    ),
}


@attrs.frozen(kw_only=True)
class Prompt:
    """A method that puts virtual tokens before the sequence; attributes as those of :class:`Kind`."""

    about: str
    fixed: Mapping[str, Any] = attrs.field(factory=dict)
    defaults: Mapping[str, Any] = attrs.field(factory=dict)


PROMPTS: dict[str, Prompt] = {
    "P_TUNING": Prompt(
        about="a soft prompt that a small network makes; `p_tuning` is adapterkit's own",
        defaults={"learning_rate": 1e-3},
    ),
    "PROMPT_TUNING": Prompt(
        about="a soft prompt; `prompt_tuning` is adapterkit's own", defaults={"learning_rate": 3e-2}
    ),
    "MULTITASK_PROMPT_TUNING": Prompt(
        about="a soft prompt times a low-rank one of its task; one task",
        fixed={"num_tasks": 1},
        defaults={"learning_rate": 3e-2},
    ),
}

_INTEGERS = "its file holds whole numbers beside what was trained, and adapter files here hold trained numbers only"

_ANEW = "what it needs beside its file is computed anew from the base's weights, and comes out otherwise "

REFUSED: dict[str, str] = {
    "ADAMSS": _ANEW + "in another precision: clusters of singular vectors",
    "ADALORA": "it gives ranks to layers and takes them away between training steps, where no method acts here",
    "ADAPTION_PROMPT": "it replaces whole attention modules, and a site is a layer; `lora` or `prompt_tuning` come nearest",
    "CARTRIDGE": "its keys and values are distilled from a corpus in a run of their own; `prefix_tuning` comes nearest",
    "CPT": "its loss weighs each token of the prompt, and its prompt is cut back after each step; `prompt_tuning` comes nearest",
    "FROD": _INTEGERS,
    "LILY": "its router averages over the whole batch, so that a row's answer would depend on its neighbours",
    "PREFIX_TUNING": "it is adapterkit's own: `prefix_tuning`",
    "PSOFT": _ANEW + "on another machine: singular vectors, whose signs are free",
    "SHADOW": "it runs a second, smaller model beside the base, and a site is a layer",
    "SHIRA": _INTEGERS,
    "SUPERTUNING": _INTEGERS,
    "TRAINABLE_TOKENS": "it is a part of `lora` here: trainable_token_indices",
    "XLORA": "it mixes LoRA adapters that are trained already; load them and give each row its own",
}
