"""The licence of a base: an adapter is published under terms that its base allows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterkit.artifact.card import HUB_ID
from adapterkit.baking.files import licence_of
from adapterkit.errors import BaseLoadError

if TYPE_CHECKING:
    from adapterkit.artifact.manifest import BaseReference

__all__ = ["find_licence"]

NAMES = ("license", "license_name", "license_link")


def find_licence(base: BaseReference, *, told: bool = False) -> dict[str, Any]:
    """What the base's card says: ``license`` and, where that is ``other``, ``license_name`` and ``license_link``.

    Empty where it says nothing, or is not found.

    Args:
        base: The base: a folder of this machine, or what came from the Hub, which is asked.
        told: Whether the publisher says that it is on the Hub.
    """
    if Path(base.name).is_dir():
        try:
            return licence_of(Path(base.name))
        except BaseLoadError:
            return {}
    if not HUB_ID.fullmatch(base.name) or not (told or base.revision):
        return {}
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    failures: tuple[type[BaseException], ...] = (OSError, HFValidationError, HfHubHTTPError.__bases__[0])
    try:
        info = HfApi(endpoint=os.environ.get("HF_ENDPOINT")).model_info(base.name, revision=base.revision or None)
    except failures:
        return {}  # what cannot be found out is for the publisher to say
    said = {name: getattr(info.card_data, name, None) for name in NAMES}
    return {name: value for name, value in said.items() if isinstance(value, str)}
