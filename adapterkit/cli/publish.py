"""``adapterkit publish``."""

from __future__ import annotations

import json
import sys
from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import Annotated, Any

import attrs
from cyclopts import Parameter

from adapterkit.publishing import publish as run
from adapterkit.store import Store

from .acting import check_acting
from .flags import as_flags
from .opening import AsJson  # noqa: TC001 - the same
from .plugins import PluginFiles, registry_with

__all__ = ["publish"]


def publish(
    adapter: Annotated[
        str, Parameter(help="An adapter's folder, a reference of the store such as cards@3, or a baked model's folder.")
    ],
    to: Annotated[str, Parameter(help="Where: hf://org/cards, s3://bucket/cards, file:///srv/adapters/cards.")],
    *,
    tag: Annotated[str, Parameter(help="A name for the version, such as v1; it never moves.")] = "",
    license: Annotated[  # noqa: A002 - what the Hub calls it
        str,
        Parameter(help="The adapter's licence, as the Hub writes it: apache-2.0, mit, other; the base's by default."),
    ] = "",
    license_name: Annotated[str, Parameter(help="What a licence is called that is 'other'.")] = "",
    license_link: Annotated[str, Parameter(help="Where its text is.")] = "",
    base_model: Annotated[str, Parameter(help="The base's Hub id, where it was trained on a folder.")] = "",
    base_revision: Annotated[str, Parameter(help="The base's commit there.")] = "",
    dataset: Annotated[
        tuple[str, ...], Parameter(help="The Hub id of its data; may be given again.", negative="", show_default=False)
    ] = (),
    language: Annotated[
        tuple[str, ...], Parameter(help="A language, as in en; may be given again.", negative="", show_default=False)
    ] = (),
    description: Annotated[str, Parameter(help="What it is for.")] = "",
    limits: Annotated[str, Parameter(help="What it is not for, and where it fails.")] = "",
    message: Annotated[str, Parameter(help="What is said of the version.")] = "",
    public: Annotated[bool, Parameter(help="Let a new repository be public.", negative="")] = False,
    unevaluated: Annotated[bool, Parameter(help="Publish although nothing says how good it is.", negative="")] = False,
    unlicensed: Annotated[
        bool, Parameter(help="Publish although the base's licence is not known.", negative="")
    ] = False,
    key: Annotated[Path | None, Parameter(help="A private key (PEM) to sign with.")] = None,
    store: Annotated[Path | None, Parameter(help="The store's folder, for references.")] = None,
    as_json: AsJson = False,
    plugin: PluginFiles = (),
) -> None:
    """Publish an adapter as one new version, and read it back."""
    said: dict[str, Any] = {
        "license": license,
        "license_name": license_name,
        "license_link": license_link,
        "base_model": base_model,
        "base_revision": base_revision,
        "datasets": dataset,
        "language": language,
        "description": description,
        "limits": limits,
    }
    registry = registry_with(plugin)
    held = Store(store, registry=registry)
    if adapter not in held:
        check_acting(adapter, "ADAPTER")
    with as_flags("tag", "unevaluated", "unlicensed", *said):
        made = run(
            adapter,
            to,
            tag=tag,
            message=message,
            private=not public,
            unevaluated=unevaluated,
            unlicensed=unlicensed,
            key=key,
            store=held,
            registry=registry,
            **{name: value for name, value in said.items() if value},
        )
    if as_json:
        print(json.dumps(attrs.asdict(made), indent=2))
        return
    print(made)
    print(f"{'published and read back' if made.is_new else 'there already'}: {made.revision}", file=sys.stderr)
