"""Whether an adapter's tensors are exactly those that its method expects on a base."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from adapterkit.errors import ArtifactError, BaseMismatchError
from adapterkit.fingerprint import same_base

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from .manifest import Manifest

__all__ = ["check_base", "check_tensors"]

SHOWN = 4
"""How many tensors of a kind are named in an error."""


def check_base(manifest: Manifest, fingerprint: str) -> None:
    """Refuse an adapter that says it was made for another base.

    Args:
        manifest: The adapter's manifest; one that names no fingerprint, as PEFT's folders do not, proves nothing.
        fingerprint: What :func:`adapterkit.fingerprint.fingerprint` says of this base.

    Raises:
        BaseMismatchError: The two are different bases.
    """
    made_for = manifest.base
    if made_for.fingerprint and not same_base(made_for.fingerprint, fingerprint):
        raise BaseMismatchError(
            f"the adapter was made for another base: {made_for.name or 'one'} {made_for.revision}".rstrip()
            + "; "
            + _differing(made_for.fingerprint, fingerprint)
        )


def _differing(theirs: str, ours: str) -> str:
    """The first part of two fingerprints that differs: of the embeddings and norms, or of the other weights."""
    for what, its, own in zip(("embeddings and norms", "weights"), theirs.split("."), ours.split("."), strict=False):
        if its != own:
            return f"that one's {what} have the digest {its:.12}…, this one's {own:.12}…"
    return f"that one has fingerprint {theirs!r:.80}, this one {ours!r:.80}"


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse an adapter that is not complete, or that would reach beyond itself, before a byte of it is copied.

    Args:
        tensors: The adapter's tensors, by ``"<site>.<name in the layer>"``.
        expected: Names and shapes that the method's layers have on this base; make them on the meta device.

    Raises:
        ArtifactError: A tensor is missing, is not the adapter's to have, or has another shape.
    """
    problems = [
        *_listed("missing", expected.keys() - tensors.keys()),
        *_listed("unexpected", (_explain(name, expected) for name in sorted(tensors.keys() - expected.keys()))),
        *_listed("of another shape", _wrong_shapes(tensors, expected)),
    ]
    if problems:
        raise ArtifactError("the adapter does not fit this base:" + "".join(problems))


def _listed(kind: str, names: Iterable[str]) -> list[str]:
    ordered = sorted(names)
    if not ordered:
        return []
    shown = ", ".join(islice(ordered, SHOWN))
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return [f"\n  - {len(ordered)} {kind}: {shown}{more}"]


def _explain(name: str, expected: Mapping[str, tuple[int, ...]]) -> str:
    parts = name.split(".")
    if "base_layer" in parts:
        return f"{name} (one of the base's own weights)"
    if any(".".join(parts[:i] + parts[i + 1 :]) in expected for i in range(len(parts))):
        return f"{name} (a tensor of another adapter)"
    if not any(name.endswith(tail) for tail in _tails(expected)) and parts[-1] in ("weight", "bias"):
        return f"{name} (named like one of the base's own weights)"
    return name


def _tails(expected: Mapping[str, tuple[int, ...]]) -> set[str]:
    return {"." + ".".join(name.rsplit(".", 2)[-2:]) for name in expected}


def _wrong_shapes(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name in expected}
    wrong = {name: shape for name, shape in shapes.items() if shape != tuple(expected[name])}
    return [f"{name} {shape} instead of {tuple(expected[name])}" for name, shape in wrong.items()]
