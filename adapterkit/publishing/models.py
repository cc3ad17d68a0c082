"""Publishes a whole model that was baked: an ordinary repository of transformers, in shards."""

from __future__ import annotations

import fnmatch
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.artifact.card import missing, render_model
from adapterkit.artifact.files import read_bytes
from adapterkit.artifact.layout import BAKED, CARD, MOST_HEADER_BYTES, SIGNATURE
from adapterkit.artifact.strict_json import parse_object
from adapterkit.baking.files import KEPT, WEIGHTS, licence_of
from adapterkit.checkpoint import CONFIG, inside
from adapterkit.trust import sign

from .checks import check_fit

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from adapterkit.artifact.card import Publication

    from .sending import Sent

__all__ = ["is_model", "publish_model"]

REPLACED = (*WEIGHTS, *KEPT, BAKED, SIGNATURE)
"""What a new version takes the place of: an older one may have had more shards."""


def is_model(what: str | os.PathLike[str]) -> bool:
    """Whether it is the folder of a model that `bake` wrote."""
    return all(os.path.isfile(os.path.join(what, name)) for name in (CONFIG, BAKED))  # noqa: PTH113, PTH118 - raise nothing


def publish_model(
    folder: Path,
    said: Publication,
    allowed: Collection[str],
    key: str | os.PathLike[str] | None,
    send: Callable[..., Sent],
    message: str,
    veto: Callable[..., None],
) -> Sent:
    """Publish the folder of a baked model; raises as :func:`adapterkit.publish`.

    Args:
        folder: The folder; a signature is written into it, where there is a key.
        said: What is said of it.
        allowed: Words of what its card may lack.
        key: The private key to sign with.
        send: Sends files.
        message: What is said of the version.
        veto: Called with the card before anything is sent; raises where somebody objects.
    """
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    strange = [name for name in found if not any(fnmatch.fnmatch(name, one) for one in (*REPLACED, CARD))]
    values = parse_object(read_bytes(folder, BAKED, MOST_HEADER_BYTES), BAKED)
    licence: dict[str, Any] = dict(licence_of(folder))
    said = said if said.license else attrs.evolve(said, **licence)
    with tempfile.TemporaryDirectory(prefix="adapterkit-") as staging:
        card = Path(staging) / CARD
        card.write_text(render_model(values, licence, said), encoding="utf-8", newline="\n")
        files = {name: inside(folder, name) for name in found if name not in strange} | {CARD: card}
        lacks = [*missing(values, said), *(f"{name}: is no file of a model: move it away" for name in strange)]
        title = message or f"model {folder.resolve().name}"
        check_fit(f"the model in {str(folder)!r}", lacks, files, allowed, {"the message": title})
        veto(card=card.read_text(encoding="utf-8"))
        if key is not None:
            files[SIGNATURE] = sign(folder, key)
        return send(files, message=title, replaces=REPLACED)
