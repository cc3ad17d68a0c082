"""Training: it moves the adapter, all of it and nothing else, the same way each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import torch

from adapterkit.contracts import TrainOptions
from adapterkit.errors import ConfigError
from adapterkit.testing.comparing import changed, distance, loss, own_plan, stirred, surroundings
from adapterkit.testing.fresh import elsewhere
from adapterkit.testing.outcomes import require
from adapterkit.testing.words import ROWS, some_ids

if TYPE_CHECKING:
    from torch import Tensor

    from adapterkit.testing.subject import Subject

__all__ = [
    "importing_changes_nothing_else",
    "recomputing_activations_changes_nothing",
    "surroundings_are_left_alone",
    "training_is_repeatable",
    "training_lowers_the_loss",
    "training_reaches_every_tensor",
]


def training_reaches_every_tensor(subject: Subject) -> None:
    """Every trained tensor gets a gradient that is a number and not zero, and has moved at the end.

    A tensor that gets none is saved, shipped and counted all the same: a ``detach()`` or an ``.item()`` too many is a common
    reason. One that must not be trained belongs into a buffer, or needs ``requires_grad=False``.
    """
    seen = subject.train(subject.base())
    require(seen.gradients, "the layers have no parameter to train")
    without = [name for name, found in seen.gradients.items() if not any(bool(one.any()) for one in found)]
    listening = {
        f"{site}.{name}"
        for site, layer in seen.trained.items()
        for name, parameter in layer.named_parameters()
        if parameter.requires_grad
    }
    without += sorted(listening - seen.gradients.keys())
    require(
        not without,
        f"no gradient reaches {', '.join(without[:3])}: look for detach(), .data, .item() or a parameter unused",
    )
    wild = [name for name, found in seen.gradients.items() if not all(bool(one.isfinite().all()) for one in found)]
    require(not wild, f"the gradient of {', '.join(wild[:3])} is not a number")
    resting = [
        f"{site}.{name}"
        for site, layer in seen.fresh.items()
        for name, parameter in layer.named_parameters()
        if parameter.requires_grad and torch.equal(parameter, dict(seen.trained[site].named_parameters())[name])
    ]
    require(
        not resting,
        f"{', '.join(resting[:3])} got a gradient and has not moved: is it replaced after the optimizer was made?",
    )


def training_lowers_the_loss(subject: Subject) -> None:
    """Twenty steps at the method's own learning rate lower the loss on the rows that they are taken on.

    That is what training is for; a gradient of the wrong sign, or a default learning rate that is far too high, shows here.
    """
    base = subject.base()
    own = {**attrs.asdict(TrainOptions()), **subject.method.defaults, **subject.options}
    seen = subject.train(base, max_steps=20, learning_rate=own["learning_rate"])
    before = loss(base, own_plan(subject.name, seen.fresh), seen.examples)
    with base.using(seen.adapter):
        after = loss(base, base.runtime.plan, seen.examples)
    require(after < before, f"the loss was {before:.5f} before training and is {after:.5f} after 20 steps")


def training_is_repeatable(subject: Subject) -> None:
    """The same rows, options and seed train the same adapter to the bit, whatever was drawn or run before.

    Draw from torch alone: the run's seed is set there before ``build``. Python's and numpy's random numbers, the time, and
    the order of a set are not governed by it.
    """
    first = subject.train(subject.base()).adapter
    with stirred():
        second = subject.train(subject.base()).adapter
    different = [name for name in first.tensors if not torch.equal(first.tensors[name], second.tensors[name])]
    require(
        first == second,
        f"the same run trained another adapter: {', '.join(different[:3]) or 'its configuration'} differs. Draw random numbers "
        "from torch alone",
    )


def recomputing_activations_changes_nothing(subject: Subject) -> None:
    """``gradient_checkpointing`` gives the same gradients: a layer's forward pass may be run twice, and must do the same twice.

    It is how long rows and large bases are trained; without the trait ``recomputable`` it must be refused. A layer that counts its
    calls, or keeps its last input, breaks it.
    """
    if not subject.method.traits.recomputable:
        require(
            _refuses_to_recompute(subject), "traits say recomputable=False, and gradient_checkpointing is not refused"
        )
        return
    kept, recomputed = (
        subject.train(subject.base(), max_steps=2, gradient_checkpointing=on).gradients for on in (False, True)
    )
    for name, gradients in kept.items():
        found = max(_relative(*pair) for pair in zip(recomputed[name], gradients, strict=True))
        require(
            found <= 1e-4,
            f"the gradient of {name} is another one when activations are recomputed (by {found:.1%} of its size): the layer's "
            "forward must depend on its parameters and inputs alone",
        )


def _refuses_to_recompute(subject: Subject) -> bool:
    try:
        subject.train(subject.base(), max_steps=1, gradient_checkpointing=True)
    except ConfigError:
        return True
    return False


def _relative(one: Tensor, other: Tensor) -> float:
    size = float(other.abs().max())
    return distance(one / size, other / size) if size else float(one.abs().max())


def surroundings_are_left_alone(subject: Subject) -> None:
    """Training, loading and answering leave what belongs to the process alone: random states, torch's settings, the environment.

    The method runs inside somebody else's program, whose other parts rely on them.
    """
    base = subject.base()
    base.train(
        list(ROWS), method=subject.name, **{**subject.options, "max_steps": 1}
    )  # what libraries do once is not counted
    with stirred():
        before = surroundings()
        adapter = subject.train(base, max_steps=1).adapter
        base.logits(some_ids(), adapter=adapter)
        base.generate(ROWS[0]["prompt"], adapter=adapter, max_new_tokens=1)
        different = changed(before, surroundings())
    require(not different, f"a run changes {', '.join(different)}")


def importing_changes_nothing_else(subject: Subject) -> None:
    """Importing the plugin leaves what belongs to the process alone: random states, torch's settings, the environment.

    A plugin is imported when somebody first looks for a method, perhaps another plugin's.
    """
    found = elsewhere(subject).changed
    require(not found, f"importing the plugin changes {', '.join(found)}: do it where it is needed, and put it back")
