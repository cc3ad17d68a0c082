"""What is known of an adapter's past, as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.artifact.markup import one_line
from adapterkit.config import to_dict

from .lines import DATA, SHORT, lines_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.tree import Tree

    from adapterkit.artifact.manifest import Manifest

__all__ = ["Lineage"]


@attrs.frozen(kw_only=True)
class Lineage:
    """What is known of an adapter, and of those that it was made of.

    Attributes:
        digest: The adapter's.
        method: Its method.
        weight: With what weight it went into the one above; None for the adapter that was asked about.
        reference: Where the store has it; empty where it was not found there.
        stage: What a recipe calls it; empty elsewhere.
        config: The method's configuration; empty where it is not known.
        manifest: What it says of itself; None where nothing but its digest is known.
        lineage: How it was made of others, as its manifest or a recipe says it; empty for one that was trained.
        parents: Those that it was made of.
        repeated: Whether it stands further up already, with its own parents.
        cut: Whether it was made of others that are not followed, as there were too many above.
    """

    digest: str
    method: str = ""
    weight: float | None = None
    reference: str = ""
    stage: str = ""
    config: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    manifest: Manifest | None = attrs.field(default=None, repr=False)
    lineage: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    parents: tuple[Lineage, ...] = ()
    repeated: bool = False
    cut: bool = False

    @property
    def made(self) -> str:
        """``"merge"``, ``"extract"``, ``"training"``, or ``"unknown"``."""
        if self.lineage:
            return str(self.lineage.get("kind", "unknown"))
        return "training" if self.manifest is not None and self.manifest.training else "unknown"

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values; what is not known is left out."""
        said = self.manifest
        training = dict(said.training) if said is not None else {}
        data = {name: training.pop(name) for name in DATA if isinstance(training.get(name), dict)}
        how = {name: one for name, one in self.lineage.items() if name not in ("parents", "recipe")}
        values: dict[str, Any] = {
            "digest": self.digest,
            "method": self.method,
            "weight": self.weight,
            "reference": self.reference,
            "stage": self.stage,
            "made": self.made,
            "plugin": said.plugin if said is not None else "",
            "base": to_dict(said.base) if said is not None else {},
            "config": dict(self.config),
            "data": data,
            "training": training,
            "made_of": how,
            "evaluation": dict(said.evaluation) if said is not None else {},
            "versions": dict(said.versions) if said is not None else {},
            "repeated": self.repeated,
            "cut": self.cut,
            "parents": [one.to_json() for one in self.parents],
        }
        return {name: value for name, value in values.items() if value not in ("", None, {}, [], False)}

    def tree(self) -> Tree:
        """The same as a tree that ``rich`` prints."""
        from rich.text import Text
        from rich.tree import Tree

        tree = Tree(Text(one_line(self._title())))
        if not self.repeated:
            for line in lines_of(self.manifest, self.lineage):
                tree.add(Text(one_line(line)))
        if self.cut:
            tree.add(Text("made of others, which are not followed so far"))
        for one in self.parents:
            tree.children.append(one.tree())
        return tree

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(color_system=None, width=500, legacy_windows=False)
        with console.capture() as caught:
            console.print(self.tree())
        return "\n".join(line.rstrip() for line in caught.get().splitlines())

    def _title(self) -> str:
        weight = f"{self.weight:g} × " if self.weight is not None else ""
        name = self.reference or self.stage
        above = " (as above)" if self.repeated else ""
        return f"{weight}{self.method or 'adapter'} {self.digest[:SHORT]}{f' · {name}' if name else ''}{above}"
