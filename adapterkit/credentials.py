"""Keys and tokens by the form that their issuers give them.

The detectors are those of Yelp's detect-secrets, which are asked for the form alone: none of them calls an issuer to see whether
a key is valid. Left out are its guesses by entropy and by keyword, which are made for source code: in prose, "my password is wrong"
has no secret in it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["NEWER", "Match", "Secrets", "apart"]

GUESSES = {"Base64 High Entropy String", "Hex High Entropy String", "Secret Keyword", "Public IP (ipv4)"}
NEWER = {
    "Anthropic API Key": re.compile(r"\bsk-ant-[a-z]+\d{2}-[\w-]{80,120}"),
    "GitHub Token": re.compile(r"\bgithub_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}\b"),
    "Google API Key": re.compile(r"\bAIza[\w-]{35}(?![\w-])"),
    "Hugging Face Token": re.compile(r"\bhf_[A-Za-z]{34}\b"),
    "OpenAI Token": re.compile(r"\bsk-(?:proj|svcacct|admin)-[\w-]{40,200}"),
    "Private Key": re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY(?: BLOCK)?-----(?:[^-]+-----END [A-Z ]+-----)?"),
}
"""Forms that came after detect-secrets' last release, and whole private keys where it finds their first line."""


@attrs.frozen
class Match:
    """What was found: its kind, and its range of characters."""

    kind: str
    start: int
    end: int


def apart(matches: Iterable[Match]) -> Iterator[Match]:
    """Those that share no character with one before."""
    taken: list[Match] = []
    for match in matches:
        if all(match.end <= other.start or other.end <= match.start for other in taken):
            taken.append(match)
            yield match


class Secrets:
    """Finds secrets in text."""

    def __init__(self) -> None:
        from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

        known: dict[str, Any] = get_mapping_from_secret_type_to_class()
        self._detectors = [detector() for kind, detector in known.items() if kind not in GUESSES]

    def find(self, text: str) -> Iterator[Match]:
        """What is in ``text``, each place once."""
        return apart(self._all(text))

    def _all(self, text: str) -> Iterator[Match]:
        for kind, pattern in NEWER.items():
            for found in pattern.finditer(text):
                yield Match(kind, found.start(), found.end())
        for detector in self._detectors:
            for secret in set(detector.analyze_string(text)):
                start = text.find(secret)
                while secret and start >= 0:
                    yield Match(detector.secret_type, start, start + len(secret))
                    start = text.find(secret, start + len(secret))
