"""``adapterkit trust``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
from cyclopts import App, Parameter

from adapterkit.publishing import is_address
from adapterkit.store import Store, is_reference
from adapterkit.trust import VARIABLE, Admission, check_trusted, current_policy

from .opening import AsJson  # noqa: TC001 - cyclopts reads the annotation

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["trust_command"]


def trust_command(_arguments: Sequence[str]) -> App:
    """The commands under ``adapterkit trust``."""
    app = App(name="trust", help="Ask the trust policy.", help_format="plaintext")
    app.command(check)
    return app


def check(
    adapter: Annotated[
        str,
        Parameter(
            help="A folder, a version in the store such as cards@production, or an address such as hf://org/cards@<id>."
        ),
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Say which rule of the trust policy lets an adapter in, and who has signed it; of an address, which rule would."""
    admitted = _asked(adapter)
    if as_json:
        print(json.dumps(attrs.asdict(admitted) if admitted else None))
    elif admitted is None:
        print(f"no trust policy is in force: what can be loaded is let in; {VARIABLE} names one")
    else:
        signature = f"signed by {admitted.signer}" if admitted.signer else "no signature is needed"
        if admitted.signer and is_address(adapter):
            signature = f"a signature of {admitted.signer} is needed"
        print(f"let in by the rule {admitted.rule!r} of {admitted.policy}; {signature}")


def _asked(adapter: str) -> Admission | None:
    if is_address(adapter):
        policy = current_policy()
        rule = policy.check(adapter) if policy else None
        return Admission(str(policy.path), str(rule), " or ".join(rule.signers)) if policy and rule else None
    if not Path(adapter).exists() and is_reference(adapter):
        store = Store()
        version = store.resolve(adapter)
        return check_trusted(store.files(version), origin=version.origin)
    return check_trusted(adapter)
