"""What a card is made of: what the manifest knows, and what is said when the adapter is published."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.artifact.layout import PEFT_CONFIG
from adapterkit.artifact.markup import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HUB_ID", "About", "Publication"]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
PLACE = re.compile(r"[a-z][a-z0-9+.-]*://[\w./:~+-]+", re.ASCII)
REVISION = re.compile(r"[\w][\w./+-]*", re.ASCII)


@attrs.frozen(kw_only=True)
class Publication:
    """What is said of an adapter, or of a model, when it is published.

    Attributes:
        url: Where it goes, without the revision, such as ``"hf://org/cards"``.
        repository: Its id on the Hub, such as ``"org/cards"``; empty for other places.
        revision: The tag that it will have there; empty without one.
        license: The Hub's name of its licence, such as ``"apache-2.0"``, or ``"other"`` with the two below.
        license_name: What another licence is called.
        license_link: Where it can be read: a URL, or the name of a file beside.
        base_model: The base's id on the Hub, where the manifest knows it by a folder only.
        base_revision: The base's commit there.
        datasets: Ids on the Hub of what it was trained on.
        language: ISO 639 codes of the languages that it is for.
        tags: Further tags.
        description: What it is for, as paragraphs of plain text.
        limits: What it should not be used for, and what it cannot do, likewise.
    """

    url: str = ""
    repository: str = ""
    revision: str = ""
    license: str = ""
    license_name: str = ""
    license_link: str = ""
    base_model: str = ""
    base_revision: str = ""
    datasets: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    language: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    tags: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    description: str = ""
    limits: str = ""


@attrs.frozen
class About:
    """The content of an ``adapterkit.json``, or of an ``adapterkit-bake.json``, with what is said of it.

    Attributes:
        values: The content.
        said: What is said; None for a folder on somebody's disk.
    """

    values: Mapping[str, Any]
    said: Publication | None = None

    @property
    def publication(self) -> Publication:
        """What is said: nothing, for a folder on somebody's disk."""
        return self.said or Publication()

    @property
    def base_id(self) -> str:
        """The base's id on the Hub; empty where it is not known. What came from there has a commit."""
        name = self.publication.base_model
        if not name and self.values["base"]["revision"]:
            name = self.values["base"]["name"]
        return name if HUB_ID.fullmatch(name) else ""

    @property
    def base_revision(self) -> str:
        """The base's commit."""
        if self.publication.base_model and self.publication.base_model != self.values["base"]["name"]:
            return self.publication.base_revision
        revision: str = self.publication.base_revision or self.values["base"]["revision"]
        return revision

    @property
    def base(self) -> str:
        """What the base is called: its id, else the folder that it came from; without the way there once it is published."""
        name: str = self.values["base"]["name"]
        if self.base_id or self.said is None:
            return self.base_id or name
        return name.replace("\\", "/").rstrip("/").rpartition("/")[2]

    @property
    def linked_base(self) -> str:
        """The same as Markdown, with a link to where it is on the Hub."""
        return f"[{plain(self.base)}](https://huggingface.co/{self.base_id})" if self.base_id else plain(self.base)

    @property
    def name(self) -> str:
        """What it is called where it is published; empty elsewhere."""
        name = (self.publication.repository or self.publication.url).rpartition("/")[2]
        return name if HUB_ID.fullmatch(name) else ""

    @property
    def hub_id(self) -> str:
        """Its own id on the Hub; empty elsewhere."""
        repository = self.publication.repository
        return repository if self.place and HUB_ID.fullmatch(repository) else ""

    @property
    def place(self) -> str:
        """Where it is loaded from: a URL with its revision, as far as both are such as can be written into code; else empty."""
        url, revision = self.publication.url, self.publication.revision
        if not PLACE.fullmatch(url) or (revision and not REVISION.fullmatch(revision)):
            return ""
        return f"{url}@{revision}" if revision else url

    @property
    def has_peft_form(self) -> bool:
        """Whether PEFT reads it."""
        return PEFT_CONFIG in self.values.get("files", ())

    @property
    def is_merged(self) -> bool:
        """Whether it was made of other adapters."""
        return self.part("lineage").get("kind") == "merge"

    def part(self, name: str) -> Mapping[str, Any]:
        """A part of the content that is a mapping; an empty one where there is none."""
        found = self.values.get(name)
        return found if isinstance(found, dict) else {}
