"""Runs the blocks of a page in order, and says what the page would have to show.

A ``python`` block runs in the page's one namespace; what it prints is shown below each ``print``, behind ``#> ``. One whose
first line is a comment that names a file, such as ``# mine.py``, is written there instead, and so is a block of another language
whose fence names one, such as ``json rows.jsonl``. In a ``console`` block, lines
that begin with ``$ adapterkit`` (with ``NAME=value`` before, perhaps) run, and what they print is shown below them; a ``…``
that a page shows stands for whatever is there. Other blocks and other commands are read by people only.
"""

import ast
import builtins
import contextlib
import io
import logging
import os
import re
import shlex
import sys
from pathlib import Path
from unittest import mock

from adapterkit.cli import main
from adapterkit.discovery import find
from adapterkit.registry import Registry

SHOWN = "#> "
WIDTH = "100"
_FILE = re.compile(r"# ([\w./-]+\.\w+)\n")
_ASSIGNED = re.compile(r"[A-Z_]+=")
_NOISE = re.compile(r"it/s\]|^\s*$")


def bundled():
    """A registry of what this distribution brings: pages do not show what else is installed where they are tested."""
    return Registry([one for one in find() if one.distribution == "adapterkit"])


@contextlib.contextmanager
def own_environment(folder):
    """What a page sets is forgotten after it, and its store is its own."""
    with mock.patch.dict(os.environ, {"ADAPTERKIT_STORE": str(Path(folder) / "store")}):
        yield


class Page:
    """One page while it is run, in the current folder."""

    def __init__(self):
        self.names = {"__name__": "__main__"}
        self._registry = bundled()
        self._blocks = 0

    def shown(self, block):
        """The block's text as it is when what it shows is true."""
        if block.info == "python" and not block.marked:
            with self._own_registry():
                return self._python(block.text)
        if block.info == "console":
            return _console(block.text)
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
        return block.text

    @contextlib.contextmanager
    def _own_registry(self):
        """The page's plugins are not those of the process, which other tests look at."""
        with contextlib.ExitStack() as stack:
            for module in ("shared", "adapter", "audit.run", "audit.canaries"):
                stack.enter_context(mock.patch(f"adapterkit.{module}.default_registry", return_value=self._registry))
            stack.enter_context(mock.patch("adapterkit.Registry", bundled, create=True))
            yield

    def _python(self, text):
        named = _FILE.match(text)
        if named:
            Path(named[1]).write_text(text.removeprefix(named[0]), encoding="utf-8")
            return text
        code = "".join(line for line in text.splitlines(keepends=True) if not line.lstrip().startswith(SHOWN.strip()))
        real = _with_prints(code, self._prints(code))
        return text if _agree(text, real) else real

    def _prints(self, code):
        """What each line printed, by line number."""
        said = []
        self._blocks += 1
        name = f"<block {self._blocks}>"

        def record(*values, sep=" ", end="\n", file=None, flush=False):
            if file is not None:
                builtins.print(*values, sep=sep, end=end, file=file, flush=flush)
                return
            frame = sys._getframe(1)
            while frame.f_code.co_filename != name:  # a function of an earlier block prints for the line that calls it
                frame = frame.f_back
            said.append((frame.f_lineno, sep.join(map(str, values))))

        self.names["print"] = record
        exec(compile(code, name, "exec"), self.names)
        return said


def _with_prints(code, said):
    """``code`` with what was printed below the statement that printed it."""
    lines = code.splitlines()
    ends = _statement_ends(code)
    below = {}
    for line, text in said:
        below.setdefault(ends.get(line, line), []).extend(text.splitlines() or [""])
    out = []
    for number, line in enumerate(lines, 1):
        out.append(line)
        indent = " " * (len(lines[number - 1]) - len(lines[number - 1].lstrip()))
        out += [f"{indent}{SHOWN}{text}".rstrip() for text in below.get(number, ())]
    return "\n".join(out) + "\n"


def _statement_ends(code):
    """The last line of the innermost simple statement, by each of its lines."""
    simple = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.stmt) and not hasattr(node, "body")]
    return {line: node.end_lineno for node in simple for line in range(node.lineno, node.end_lineno + 1)}


def _console(text):
    out, shown = [], []
    for piece in [*re.findall(r"(?:.*\\\n)*.*\n", text), "$ end"]:
        line = piece.removesuffix("\n")
        if not line.startswith("$ "):
            shown.append(line)
            continue
        out += _agreed(shown, _answer(out[-1])) if out and _runs(out[-1]) else shown
        out.append(line)
        shown = []
    return "\n".join(out[:-1]) + "\n"


def _runs(line):
    words = line.removeprefix("$ ").replace("\\\n", "").split()
    return "adapterkit" in words and all(_ASSIGNED.match(word) for word in words[: words.index("adapterkit")])


def _answer(line):
    """What a command prints, on both streams, but for progress; its exit code where it is not 0."""
    words = shlex.split(line.removeprefix("$ ").replace("\\\n", ""))
    start = words.index("adapterkit")
    settings = dict(word.split("=", 1) for word in words[:start])
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    with mock.patch.dict(os.environ, {**settings, "COLUMNS": WIDTH}), contextlib.ExitStack() as stack:
        os.environ.pop("FORCE_COLOR", None)
        for name in ("default_registry", "Registry"):
            stack.enter_context(mock.patch(f"adapterkit.cli.plugins.{name}", bundled))  # each command starts anew
        stack.enter_context(contextlib.redirect_stdout(said))
        stack.enter_context(contextlib.redirect_stderr(said))
        logging.getLogger("adapterkit").addHandler(handler)
        stack.callback(logging.getLogger("adapterkit").removeHandler, handler)
        code = main(words[start + 1 :])
    lines = [line.rstrip() for line in said.getvalue().splitlines() if not _NOISE.search(line)]
    return [*lines, f"(exit code {code})"] if code else lines


def _agreed(shown, real):
    """What the page shows when it is true; else what is really there."""
    return shown if _agree("\n".join(line for line in shown if line.strip()), "\n".join(real)) else real


def _agree(shown, real):
    """Whether the two are the same where ``…`` in ``shown`` stands for anything in a line, and alone for any lines."""
    lines = ["(?s:.*)" if line == "…" else re.escape(line).replace("…", ".*") for line in shown.split("\n")]
    return re.fullmatch("\n".join(lines), real) is not None
