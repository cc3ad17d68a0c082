"""``adapterkit blend``: its options are those of learning a blend, besides its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from adapterkit.adapter import Adapter
from adapterkit.blending import BlendOptions, LearnedBlend
from adapterkit.errors import ConfigError

from .acting import check_acting
from .opening import (
    AsJson,
    BaseName,
    Columns,
    DataFile,
    Device,
    Dtype,
    Format,
    Quantize,
    Revision,
    open_base,
)
from .options import check_file, given, with_options
from .plugins import PluginFiles  # noqa: TC001 - cyclopts reads the annotation
from .tables import print_table

__all__ = ["blend"]


def _blend(
    base: BaseName,
    data: DataFile,
    *,
    adapter: Annotated[
        tuple[str, ...],
        Parameter(
            help="An adapter's folder, perhaps with a name: --adapter cards=out/cards; to be given for each.",
            negative="",
            show_default=False,
        ),
    ],
    output: Annotated[Path, Parameter(help="A file for the blend, such as mix.json.")],
    eval_data: Annotated[str | None, Parameter(help="Held-out rows, to see what the weights are worth.")] = None,
    eval_split: Annotated[
        float | None, Parameter(help="Hold out this part of DATA instead, or so many rows. [default: 0.2]")
    ] = None,
    columns: Columns = None,
    format: Format = None,  # noqa: A002 - the word that users know
    revision: Revision = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    quantize: Quantize = None,
    as_json: AsJson = False,
    plugin: PluginFiles = (),
    **options: Any,
) -> None:
    """Find weights for adapters on a few examples, by gradients or by a search that needs none.

    The file is printed; it names the adapters by their folders, and is taken wherever --adapter is. The
    losses are of held-out rows.
    """
    check_file("DATA", data)
    if eval_data is not None:
        check_file("--eval-data", eval_data)
    if output.is_dir():
        raise ConfigError("--output does not fit", [f"{str(output)!r} is a folder; name a file in it"])
    folders = _named(adapter)
    shared = open_base(base, plugin, revision=revision, dtype=dtype, device=device, quantize=quantize)
    adapters = {name: Adapter.load(folder, registry=shared.registry) for name, folder in folders.items()}
    found = shared.learn_blend(
        adapters,
        data,
        eval_data=eval_data,
        eval_split=eval_split,
        columns=columns,
        format=format,
        **given(options, BlendOptions),
    )
    found.blend.save(output, {one: folders[name] for name, one in adapters.items()})
    if as_json:
        print(json.dumps({"blend": str(output), **found.to_json()}, indent=2, ensure_ascii=False))
        return
    _show(found)
    print(output)


def _named(given_: tuple[str, ...]) -> dict[str, Path]:
    """Folders by name: their own where none is given.

    Raises:
        ConfigError: One is not there, or two have the same name.
    """
    folders: dict[str, Path] = {}
    for one in given_:
        name, equals, path = one.partition("=")
        if not equals or Path(one).exists():
            name, path = one, one
        check_acting(path)
        if not Path(path).is_dir():
            raise ConfigError("--adapter does not fit", [f"{path!r} is no folder: weights are learned for adapters"])
        if name in folders:
            raise ConfigError("--adapter does not fit", [f"two adapters are called {name!r}"])
        folders[name] = Path(path)
    return folders


def _show(found: LearnedBlend) -> None:
    rows = [
        [name, f"{loss:.4f}", f"{found.weights[name]:g}" if name in found.weights else ""]
        for name, loss in found.losses.items()
    ]
    print_table([["", "loss", "weight"], *rows], file=sys.stderr)
    print(f"weights of {found.rows} rows, losses of {found.held_out} others", file=sys.stderr)
    best = min(found.losses, key=found.losses.__getitem__)
    if best != "learned":
        print(
            f"the lowest loss is that of {best}: on rows like these, the learned weights are not worth it",
            file=sys.stderr,
        )


blend = with_options(_blend, BlendOptions)
