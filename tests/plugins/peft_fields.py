"""Writes what PEFT's configurations hold into the bridge: `python tests/plugins/peft_fields.py`, after PEFT was upgraded.

The bridge offers PEFT's own options, and must know them without importing PEFT, which takes two seconds and may not be there.
"""

import dataclasses
import enum
import json
import re
import sys
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support import ROOT

FILE = ROOT / "plugins" / "adapterkit_peft" / "fields.json"
PLAIN = {int: "int", float: "float", bool: "bool", str: "str", type(None): "none"}


def fields():
    """Name, types, default and meaning of every field of every configuration but those that all of them have, by PEFT type."""
    from peft import PeftConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    common = {field.name for field in dataclasses.fields(PeftConfig)}
    return {
        peft_type.value: {
            field.name: _field(field, get_type_hints(cls, localns={"MontecloraConfig": Any})[field.name])
            for field in dataclasses.fields(cls)
            if field.name not in common
        }
        for peft_type, cls in sorted(PEFT_TYPE_TO_CONFIG_MAPPING.items())
    }


def _field(field, hint):
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    default = default.value if isinstance(default, enum.Enum) else default
    types = _types(hint)
    if dataclasses.is_dataclass(default):
        types, default = ["nested"], None
    elif default is None and "none" not in types:
        types.append("none")
    if field.name.endswith("_pattern"):  # numbers by layer; PEFT says no more than that it is a dictionary
        types = ["numbers" if one == "any" else one for one in types]
    types.sort(
        key=str
    )  # in the order in which PEFT wrote them they are not always: typing keeps unions for one another
    return {"types": types, "default": default, "help": _first_sentence(field.metadata.get("help", ""))}


def _types(hint):
    """The kinds of values that a field takes; ``nested`` is a configuration in a configuration, ``any`` is all that is JSON."""
    if hint in PLAIN:
        return [PLAIN[hint]]
    origin = get_origin(hint)
    if origin is Literal:
        return [{"one of": list(get_args(hint))}]
    if origin in (Union, type(int | str)):
        found = [one for part in get_args(hint) for one in _types(part)]
        return [one for number, one in enumerate(found) if one not in found[:number]]
    if origin is list and get_args(hint)[0] in (int, str):
        return [f"{PLAIN[get_args(hint)[0]]} list"]
    return _special(hint)


def _special(hint):
    if dataclasses.is_dataclass(hint):
        return ["nested"]
    return ["str"] if isinstance(hint, type) and issubclass(hint, enum.Enum) else ["any"]


def _first_sentence(text):
    whole = text if isinstance(text, str) else "".join(text)
    return re.split(r"(?<=[.!?])\s", " ".join(whole.split()), maxsplit=1)[0]


def text():
    """The file: a line for each field."""
    methods = [
        f'"{peft_type}": {{\n' + ",\n".join(f' "{name}": {json.dumps(one[name])}' for name in one) + "\n}"
        for peft_type, one in fields().items()
    ]
    return "{\n" + ",\n".join(methods) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
