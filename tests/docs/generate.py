"""Writes what the pages take from the code: `python tests/docs/generate.py`, with pages to run as well where they are named.

A part of a page between ``<!-- generated: NAME -->`` and ``<!-- end -->`` is written from the code. With the paths of pages as
arguments, what their blocks print is written below them too; look at the difference before you keep it.
"""

import inspect
import os
import re
import shutil
import sys
import tempfile
import types
from importlib import import_module
from pathlib import Path
from typing import Literal, Union, get_args, get_origin, get_type_hints
from unittest import mock

import attrs
from prometheus_client.metrics import MetricWrapperBase

sys.path.insert(0, str(Path(__file__).parents[2]))

from adapterkit import errors
from adapterkit.cli.options import field_docs
from adapterkit.merging.strategy import FILLED
from adapterkit.serving.http.app import ROUTES
from adapterkit.serving.http.errors import KINDS as STATUSES
from adapterkit.serving.metrics import Metrics
from adapterkit.testing import CHECKS
from adapterkit.testing.hub import KINDS as FAULTS
from adapterkit_merges import adapterkit_merge_strategies
from adapterkit_peft.catalogue import KINDS, PROMPTS, REFUSED
from tests.docs.pages import ROOT, blocks, pages

OPTIONS = {
    "TrainOptions": "adapterkit.contracts",
    "LoraConfig": "adapterkit_lora.config",
    "GenerateOptions": "adapterkit.generation",
    "EvaluateOptions": "adapterkit.evaluation",
    "AuditOptions": "adapterkit.audit",
    "BlendOptions": "adapterkit.blending",
    "EngineOptions": "adapterkit.serving",
    "AskOptions": "adapterkit.serving",
    "Settings": "adapterkit.serving.http",
}
QUICKSTART = ROOT / "examples" / "quickstart.py"
_PART = re.compile(r"(<!-- generated: ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_DEMO = re.compile(r"(<!-- quickstart -->\n```python\n).*?(^```$)", re.DOTALL | re.MULTILINE)


def generated(text):
    """A page with its generated parts as the code has them now."""
    text = _PART.sub(lambda found: f"{found[1]}\n{_part(found[2])}\n{found[3]}", text)
    return _DEMO.sub(lambda found: found[1] + QUICKSTART.read_text(encoding="utf-8") + found[2], text)


def _part(name):
    whole = {
        "errors": _error_tree,
        "checks": _checks,
        "faults": _faults,
        "http errors": _http_errors,
        "merge strategies": _merge_strategies,
        "metrics": _metrics,
        "peft methods": _peft_methods,
        "peft refusals": _peft_refusals,
        "routes": _routes,
    }
    return whole[name]() if name in whole else options_table(getattr(import_module(OPTIONS[name]), name))


def options_table(cls):
    """The options of a class: name, type, default and what it does."""
    docs, hints = field_docs(cls), get_type_hints(cls)
    rows = [
        f"| `{field.name}` | {_code(_type(hints[field.name]))} | {_code(_default(field))} | {docs[field.name]} |"
        for field in attrs.fields(cls)
    ]
    return "\n".join(["| option | type | default | what it does |", "|---|---|---|---|", *rows]) + "\n"


def _type(hint):
    if get_origin(hint) is Literal:
        return " | ".join(map(repr, get_args(hint)))
    if get_origin(hint) in (Union, types.UnionType):
        return " | ".join("None" if one is types.NoneType else _type(one) for one in get_args(hint))
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def _default(field):
    return repr(field.default.factory() if isinstance(field.default, attrs.Factory) else field.default)


def _code(text):
    return "`" + str(text).replace("|", "\\|") + "`"


def _peft_methods():
    """Every method of the bridge, and what it does here."""
    lines = [
        "| `method=` | what it trains | becomes | on 4 and 8 bits | PEFT loads it on GPT-2 |",
        "|---|---|---|---|---|",
    ]
    for peft_type, kind in sorted(KINDS.items()):
        effects = ", ".join(f"`{name}`" for name in kind.effects)
        quantized, loads = ("no" if "forward" in kind.reads else "yes"), ("yes" if kind.conv1d else "no")
        lines.append(f"| `peft:{peft_type.lower()}` | {kind.about} | {effects} | {quantized} | {loads} |")
    for peft_type, prompt in sorted(PROMPTS.items()):
        lines.append(f"| `peft:{peft_type.lower()}` | {prompt.about} | `Tokens` | yes | yes |")
    return "\n".join(lines) + "\n"


def _peft_refusals():
    """Every PEFT type that is not done, and why."""
    rows = [f"| `{peft_type}` | {reason} |" for peft_type, reason in sorted(REFUSED.items())]
    return "\n".join(["| PEFT type | why not |", "|---|---|", *rows]) + "\n"


def _checks():
    """Every check of the conformance kit, with what it promises."""
    found = [f"## `{check.name}`\n\n" + check.promise.replace("``", "`") + "\n" for check in CHECKS.values()]
    return "\n".join(found)


def _faults():
    """Every way in which the test Hub misbehaves."""
    lines = ["| fault | what the Hub does |", "|---|---|"]
    for name, kind in sorted(FAULTS.items()):
        said = re.sub(r":attr:`Fault\.(\w+)`", r"`\1`", inspect.getdoc(kind.act))
        lines.append(f"| `{name}` | {said} |")
    return "\n".join(lines) + "\n"


def _merge_strategies():
    """Every bundled merge strategy: what it makes, its options with their defaults, and where it is from."""
    lines = ["| strategy | what it makes of several changes | options | paper |", "|---|---|---|---|"]
    for record in sorted(adapterkit_merge_strategies(), key=lambda record: (not record.exact, record.name)):
        given = list(inspect.signature(record.merge).parameters.values())[2:]
        options = ", ".join(f"`{one.name}={one.default!r}`" for one in given if one.name not in FILLED)
        papers = re.findall(r"\b\d{4}\.\d{5}\b", inspect.getdoc(record.merge).partition("Args:")[0])
        links = ", ".join(f"[{number}](https://arxiv.org/abs/{number})" for number in papers)
        lines.append(
            f"| `{record.name}`{' (exact)' if record.exact else ''} | {record.summary} | {options} | {links} |"
        )
    return "\n".join(lines) + "\n"


def _routes():
    """Every route: who may call it, and what it does."""
    lines = ["| route | who | what it does |", "|---|---|---|"]
    for access, method, path, endpoint in ROUTES:
        if path.startswith("/page/"):  # the files of the page at /
            continue
        about = "The page." if path == "/" else inspect.getdoc(endpoint).partition("\n")[0].replace("``", "`")
        lines.append(f"| `{method} {path.replace(':path', '')}` | {access} | {about} |")
    return "\n".join(lines) + "\n"


def _http_errors():
    """What an error is over HTTP."""
    lines = ["| error | status | `type` | `code` |", "|---|---|---|---|"]
    for kind, status, type_, code in STATUSES:
        lines.append(f"| `{kind.__name__}` | {status} | `{type_}` | {f'`{code}`' if code else ''} |")
    return "\n".join(lines) + "\n"


def _metrics():
    """Every figure for Prometheus."""
    metrics = Metrics()
    kept = [one for one in vars(metrics).values() if isinstance(one, MetricWrapperBase)]
    figures = [(one._name, one._type, one._labelnames, one._documentation) for one in kept]
    metrics.observe(mock.MagicMock())
    figures += [(one.name, one.type, one._labelnames, one.documentation) for one in metrics.now()]
    lines = ["| figure | kind | labels | what it is |", "|---|---|---|---|"]
    for name, kind, labels, about in sorted(figures):
        whole = f"{name}_total" if kind == "counter" else name
        lines.append(f"| `{whole}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {about} |")
    return "\n".join(lines) + "\n"


def _error_tree():
    tree = errors.__doc__.partition("::\n\n")[2].rstrip()
    return "```text\n" + "\n".join(line.removeprefix("    ") for line in tree.splitlines()) + "\n```\n"


def rerun(page):
    """A page with its blocks as they are when they are run."""
    from tests.docs.running import Page, own_environment

    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "examples", Path(folder) / "examples")
        os.chdir(folder)
        run = Page()
        with own_environment(folder):
            found = [(block, run.shown(block)) for block in blocks(text)]
        os.chdir(ROOT)
    for block, shown in reversed(found):
        text = text[: block.start] + shown + text[block.start + len(block.text) :]
    return text


def main():
    for page in pages():
        page.write_text(generated(page.read_text(encoding="utf-8")), encoding="utf-8")
    for name in sys.argv[1:]:
        page = Path(name).resolve()
        page.write_text(rerun(page), encoding="utf-8")


if __name__ == "__main__":
    main()
