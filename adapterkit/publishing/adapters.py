"""Publishes an adapter: complete, checked, as one version, and read back."""

from __future__ import annotations

import functools
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.artifact.card import Publication, missing, render
from adapterkit.artifact.layout import CARD, MANIFEST, OURS, SIGNATURE
from adapterkit.artifact.strict_json import parse_object
from adapterkit.config import build_config
from adapterkit.errors import ConfigError
from adapterkit.registry import Registry, default_registry
from adapterkit.trust import sign

from .address import Address, check_tag_name, parse_address
from .checks import check_fit
from .finding import find_one
from .licence import find_licence
from .models import is_model, publish_model
from .sending import send

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adapterkit.adapter import Adapter
    from adapterkit.store import Store

__all__ = ["Published", "publish"]

logger = logging.getLogger("adapterkit")


@attrs.frozen(kw_only=True)
class Published:
    """A version that is published, and was read back.

    Attributes:
        url: The repository.
        revision: The version's own id, such as a commit.
        tag: The name that was given to it; empty without one.
        digest: The adapter's; empty for a model.
        is_new: Whether it was not there before.
    """

    url: str
    revision: str
    tag: str
    digest: str
    is_new: bool

    def __str__(self) -> str:
        return str(Address(self.url, self.tag or self.revision))


def publish(
    what: Adapter | str | os.PathLike[str],
    to: str,
    *,
    tag: str = "",
    message: str = "",
    private: bool = True,
    unevaluated: bool = False,
    unlicensed: bool = False,
    key: str | os.PathLike[str] | None = None,
    store: Store | None = None,
    registry: Registry | None = None,
    **about: Any,
) -> Published:
    """Publish an adapter, or a model that was baked, as one new version; nothing is sent before all of it is fit for that.

    The same again changes nothing, and goes on where a call was cut off.

    Args:
        what: An adapter, its folder, a reference of the store such as ``"cards@3"``, or the folder of a baked model.
        to: Where: ``"hf://org/cards"``, ``"s3://bucket/cards"``, ``"file:///srv/adapters/cards"``.
        tag: A name for the version, such as ``"v1"``; it never moves.
        message: What is said of the version.
        private: Whether a new repository is for its owners alone; one that is there is left as it is.
        unevaluated: Publish although nothing says how good it is.
        unlicensed: Publish although the base's licence is not known.
        key: A private key (PEM) to sign with; see :func:`adapterkit.sign`.
        store: Where references are looked up.
        registry: The plugins to use.
        **about: What the card says: ``license``, ``base_model``, ``datasets``, ``language``, ``description``, ``limits``, …; see
            :class:`adapterkit.artifact.card.Publication`.

    Raises:
        PublishError: It is not fit; all reasons together.
        ConflictError: The tag is taken, or somebody else published meanwhile.
        RemoteError: The place cannot be reached, or gave back other bytes.
    """
    plugins = registry or default_registry()
    address = parse_address(os.fspath(to))
    _check(address, tag)
    said = _said(address, tag, about, plugins)
    allowed = {word for word, given in (("evaluation", unevaluated), ("license", unlicensed)) if given}
    send_it = functools.partial(send, address.open(plugins), address.url, tag=tag, private=private)
    if isinstance(what, (str, os.PathLike)) and is_model(what):
        veto = functools.partial(plugins.ask, "adapterkit_before_publish", adapter=None, url=address.url)
        sent = publish_model(Path(what), said, allowed, key, send_it, message, veto)
        return Published(url=address.url, revision=sent.revision, tag=tag, digest="", is_new=sent.is_new)
    adapter, said = _prepared(find_one(what, registry=plugins, store=store), said)
    if key is None and isinstance(what, (str, os.PathLike)) and os.path.lexists(os.path.join(what, SIGNATURE)):  # noqa: PTH118
        logger.warning("the signature in %s does not go along, as the card's facts are written anew: give key=", what)
    name = f"the {adapter.method} adapter {adapter.digest[:12]}"
    with tempfile.TemporaryDirectory(prefix="adapterkit-") as folder:
        files = _staged(adapter, said, Path(folder) / "adapter", plugins)
        values = parse_object(files[MANIFEST].read_bytes(), MANIFEST)
        title = message or name.removeprefix("the ") + (f", {tag}" if tag else "")
        check_fit(name, missing(values, said), files, allowed, {"the message": title, "the tag": tag})
        if key is not None:
            files[SIGNATURE] = sign(files[MANIFEST].parent, key, registry=plugins)
        card = files[CARD].read_text(encoding="utf-8")
        plugins.ask("adapterkit_before_publish", adapter=adapter, url=address.url, card=card)
        sent = send_it(files, message=title, replaces=OURS)
    plugins.notify("adapterkit_published", adapter=adapter, url=address.url, revision=sent.revision)
    return Published(url=address.url, revision=sent.revision, tag=tag, digest=adapter.digest, is_new=sent.is_new)


def _check(address: Address, tag: str) -> None:
    if address.revision:
        cure = f"the address names a version: write {address.url}, and tag={address.revision!r} for its name"
        raise ConfigError(f"nothing is published to {address}", [cure])
    if tag:
        check_tag_name(tag)


def _said(address: Address, tag: str, about: Mapping[str, Any], registry: Registry) -> Publication:
    ours = sorted({"url", "repository", "revision"} & set(about))
    if ours:
        raise ConfigError("publish", [f"{ours[0]}: is taken from the address and the tag"])
    repository = address.url.partition("://")[2] if registry.remote(address.scheme).is_hub else ""
    return build_config(
        Publication, {**about, "url": address.url, "repository": repository, "revision": tag}, what="publish"
    )


def _prepared(adapter: Adapter, said: Publication) -> tuple[Adapter, Publication]:
    """The adapter with its base called as others find it, and what is said of it with the licence that the base has."""
    base = adapter.manifest.base
    if said.base_model and said.base_model != base.name:
        base = attrs.evolve(base, name=said.base_model, revision=said.base_revision)
    elif said.base_revision:
        base = attrs.evolve(base, revision=said.base_revision)
    if not said.license:
        said = attrs.evolve(
            said, **(find_licence(base, told=bool(said.base_model)) or find_licence(adapter.manifest.base))
        )
    return attrs.evolve(adapter, manifest=attrs.evolve(adapter.manifest, base=base)), said


def _staged(adapter: Adapter, said: Publication, folder: Path, registry: Registry) -> dict[str, Path]:
    adapter.save(folder, registry=registry)
    values = parse_object((folder / MANIFEST).read_bytes(), MANIFEST)
    (folder / CARD).write_text(render(values, said), encoding="utf-8", newline="\n")
    return {name: folder / name for name in OURS if (folder / name).exists()}
