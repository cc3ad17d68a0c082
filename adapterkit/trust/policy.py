"""The trust policy: which adapters are let in, from where, and signed by whom."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.errors import ConfigError, TrustError, suggest

from .sources import Pattern, Source

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["VARIABLE", "Policy", "Rule", "current_policy"]

VARIABLE = "ADAPTERKIT_TRUST"
"""The environment variable that names the policy's file."""
FILE = "trust.toml"
FIELDS = ("signers", "allow")
RULE_FIELDS = ("source", "signers")
MOST_KEY_BYTES = 1 << 16


@attrs.frozen
class Rule:
    """One ``[[allow]]`` of a policy.

    Attributes:
        source: Which sources it is about.
        signers: The names of those of whom one must have signed; none where no signature is needed.
    """

    source: Pattern
    signers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.source.text


@attrs.frozen
class Policy:
    """A policy as it stands in its file. The first rule that names a source decides; what none names is refused.

    Attributes:
        path: The file.
        signers: Files of public keys, by the name that rules call each by.
        rules: In the order of the file.
    """

    path: Path
    signers: Mapping[str, Path]
    rules: tuple[Rule, ...]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Policy:
        """Read a policy's file.

        Raises:
            ConfigError: It cannot be read or does not say what it means; everything that is wrong with it, at once.
        """
        path = Path(path)
        values = _parsed(path)
        problems = [f"{name}: no such field{suggest(name, FIELDS)}" for name in values if name not in FIELDS]
        signers = _signers(values.get("signers", {}), path.parent, problems)
        rules = _rules(values.get("allow", []), signers, problems)
        if problems:
            raise ConfigError(f"the trust policy {str(path)!r} does not fit", problems)
        return cls(path, signers, rules)

    def check(self, origin: str | os.PathLike[str], *, follow: bool = True) -> Rule:
        """The rule that lets adapters of an origin in, a signature provided where it asks for one.

        Args:
            origin: The folder's path or the URL with its revision; empty for what was made here.
            follow: Whether links of it are followed. Not where they were before: who reads what was found then must not have it
                looked for again, as a link may be changed in between.

        Raises:
            TrustError: No rule names it.
        """
        source = self._source(origin, follow=follow)
        for rule in self.rules:
            if rule.source.matches(source, any_case=True):
                if rule.source.matches(source):
                    return rule
                raise TrustError(f"{str(source)!r} differs from {str(rule)!r} in {str(self.path)!r} by case alone")
        raise self._refusal(source)

    def check_place(self, url: str) -> None:
        """Refuse a place of which no rule lets anything in, before it is asked which id a tag or a branch stands for.

        Raises:
            TrustError: There is no such rule.
        """
        source = self._source(url, follow=True)
        if not any(rule.source.names(source.place) for rule in self.rules):
            raise self._refusal(source)

    def _source(self, origin: str | os.PathLike[str], *, follow: bool) -> Source:
        try:
            return Source.at(origin) if follow else Source.of(origin)
        except ValueError as error:
            raise TrustError(f"no rule of the trust policy {str(self.path)!r} can be about it: {error}") from None

    def _refusal(self, source: Source) -> TrustError:
        named = ", ".join(repr(str(rule)) for rule in self.rules) or "nothing"
        return TrustError(f"the trust policy {str(self.path)!r} names {named}, and not {str(source)!r}")

    def keys(self, rule: Rule) -> dict[str, Path]:
        """The public keys of a rule's signers, by their names."""
        return {name: self.signers[name] for name in rule.signers}


def current_policy(environ: Mapping[str, str] | None = None) -> Policy | None:
    """The policy of this process, read anew: of ``$ADAPTERKIT_TRUST``, else ``~/.adapterkit/trust.toml``; None without either.

    Raises:
        ConfigError: The variable is set but its file is not there, or a file is not a policy.
    """
    named = (os.environ if environ is None else environ).get(VARIABLE)
    if named is not None:
        if not named:
            raise ConfigError(
                "the trust policy cannot be read", [f"{VARIABLE} is set to nothing: unset it, or name a file"]
            )
        return Policy.load(Path(named).expanduser())
    home = os.path.expanduser("~")  # noqa: PTH111 - a user without a home is no error
    at_home = Path(home, ".adapterkit", FILE)
    return Policy.load(at_home) if home != "~" and os.path.lexists(at_home) else None


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or str(error)
    except ValueError as error:  # not TOML, or not UTF-8
        reason = f"not TOML: {error}"
    raise ConfigError("the trust policy cannot be read", [f"{str(path)!r}: {reason}"])


def _signers(table: Any, beside: Path, problems: list[str]) -> dict[str, Path]:
    if not isinstance(table, dict):
        problems.append("signers: must be a table of names and files of public keys")
        return {}
    found: dict[str, Path] = {}
    for name, file in table.items():
        if not isinstance(file, str):
            problems.append(f"signers.{name}: must be the file of a public key, not {file!r:.100}")
            continue
        found[name] = beside / Path(file).expanduser()
        reason = _no_key(found[name])
        if reason:
            problems.append(f"signers.{name}: {file!r} {reason}")
    return found


def _no_key(path: Path) -> str:
    """Why a file is no public key; nothing of the file is said."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_KEY_BYTES)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if b"PRIVATE KEY" in text:
        return "is a private key: name the public one, and keep this one apart"
    return "" if b"-----BEGIN PUBLIC KEY-----" in text else "is no public key in PEM"


def _rules(listed: Any, signers: Mapping[str, Path], problems: list[str]) -> tuple[Rule, ...]:
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        problems.append("allow: must be a list of rules: write [[allow]] above each")
        return ()
    rules: list[Rule] = []
    for number, values in enumerate(listed, 1):
        wrong, where = len(problems), f"allow {number}"
        problems += [
            f"{where}: {name}: no such field{suggest(name, RULE_FIELDS)}" for name in values if name not in RULE_FIELDS
        ]
        pattern = _pattern(values.get("source"), where, problems)
        names = _names(values, signers, where, problems)
        if pattern in [rule.source for rule in rules]:
            problems.append(f"{where}: source: {pattern.text!r} has a rule before, which decides")
        if pattern and len(problems) == wrong:
            rules.append(Rule(pattern, names))
    return tuple(rules)


def _pattern(text: Any, where: str, problems: list[str]) -> Pattern | None:
    if not isinstance(text, str):
        problems.append(
            f"{where}: source: " + ("is required" if text is None else f"must be a text, not {text!r:.100}")
        )
        return None
    try:
        return Pattern.of(text)
    except ValueError as error:
        problems.append(f"{where}: source: {error}")
        return None


def _names(values: Mapping[str, Any], signers: Mapping[str, Path], where: str, problems: list[str]) -> tuple[str, ...]:
    if "signers" not in values:
        return ()
    names = values["signers"]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        problems.append(f"{where}: signers: must be a list of names; leave it out where no signature is needed")
        return ()
    problems += [
        f"{where}: signers: {name!r} is not in [signers]{suggest(name, signers)}"
        for name in names
        if name not in signers
    ]
    return tuple(names)
