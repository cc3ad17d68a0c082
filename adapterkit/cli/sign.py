"""``adapterkit sign``."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import Annotated

from cyclopts import Parameter

from adapterkit.errors import ArtifactError, TrustError
from adapterkit.trust import sign as write_signature
from adapterkit.trust import verify as who_signed

from .plugins import PluginFiles, registry_with

__all__ = ["sign"]


def sign(
    folder: Annotated[Path, Parameter(help="An adapter's folder, or a whole model's.")],
    *,
    key: Annotated[
        Path,
        Parameter(
            help="The private key: PEM, of P-256, P-384 or P-521; its passphrase is read from ADAPTERKIT_KEY_PASSPHRASE. "
            "To verify, the public key."
        ),
    ],
    verify: Annotated[
        bool, Parameter(help="Sign nothing: say whether KEY has signed what is there.", negative="")
    ] = False,
    plugin: PluginFiles = (),
) -> None:
    """Sign all files of an adapter that are ever read, or of a model, and write model.sig beside them."""
    if not verify:
        print(folder / write_signature(folder, key, registry=registry_with(plugin)).name)
        return
    try:
        who_signed(folder, {key.name: key})
    except (ArtifactError, TrustError) as error:
        raise type(error)(f"{str(folder)!r}: {error}") from error
    print(f"{folder} is what {key.name} has signed", file=sys.stderr)
