"""``hf://org/name``: repositories on the Hugging Face Hub, or on a server that speaks its language (``HF_ENDPOINT``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit import Remote, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .repository import HubRepository

__all__ = ["adapterkit_remotes"]


@hookimpl
def adapterkit_remotes() -> Iterator[Remote]:
    """``hf``."""
    yield Remote(name="hf", open=_open, summary="the Hugging Face Hub: hf://org/name@tag", is_hub=True)


def _open(url: str) -> HubRepository:
    from .repository import HubRepository  # huggingface_hub's client takes a while to import

    return HubRepository(url)
