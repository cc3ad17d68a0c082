"""``python -m tests.merge.mergekit.make [FILE]``: merge by mergekit, in an environment of its own, and keep what it made.

Needs the package index: mergekit is installed anew, with what it wants that is not here; its pins and ours can be met together.
Writes merged.safetensors, the versions in its metadata: the weights of a base, of three fine-tunes, and of what each case made.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file

from adapterkit.testing import tiny_llama
from tests.merge.mergekit.cases import CASES, NEGATIVE, SEED, VERSION, WEIGHTS
from tests.packaging.environments import Environment

FIXTURE = Path(__file__).with_name("merged.safetensors")
VERSIONS = """
import json
from importlib.metadata import version
print(json.dumps({name: version(name) for name in ("mergekit", "torch", "transformers")}))
"""


class NoIndexError(Exception):
    """mergekit cannot be had."""


def models(folder):
    """A base and three fine-tunes of it, as folders; each has moved as far as its weights are large, partly the same way."""
    model = tiny_llama(seed=0)
    model.save_pretrained(folder / "base")
    origin = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    stream = torch.Generator().manual_seed(1)
    common = {name: torch.randn(one.shape, generator=stream) for name, one in origin.items() if one.dim() == 2}
    for name in "abc":
        for weight, way in common.items():
            moved = (way + torch.randn(way.shape, generator=stream)) * origin[weight].std()
            model.get_parameter(weight).data.copy_(origin[weight] + moved)
        model.save_pretrained(folder / name)


def environment(folder):
    """An environment with mergekit, and its versions."""
    pinned = f"mergekit=={VERSION}"
    if (reached := pip("download", "--no-deps", "--dest", folder / "reached", pinned)).returncode:
        raise NoIndexError(reached.stderr.strip().splitlines()[-1])
    made = Environment.make(folder / "environment")
    done_well(pip("--python", Path(made.path("scripts")) / "python", "install", pinned))
    return made, json.loads(done_well(made.run("python", "-c", VERSIONS)).stdout)


def pip(*arguments):
    """Run pip, and give what it said."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)


def done_well(done):
    """The same, once it is seen to have worked."""
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def merged(folder):
    """What mergekit made, and the versions it was made with."""
    models(folder)
    made, versions = environment(folder)
    recipes = folder / "recipes"
    recipes.mkdir()
    for one in (*CASES, NEGATIVE):
        entries = [entry | {"model": str(folder / entry["model"])} for entry in one.theirs["models"]]
        theirs = one.theirs | {"models": entries}
        if "base_model" in theirs:
            theirs["base_model"] = str(folder / theirs["base_model"])
        (recipes / f"{one.name}.yml").write_text(yaml.safe_dump(theirs))
    done_well(made.run("python", str(Path(__file__).with_name("inside.py")), str(recipes), str(SEED)))
    kept = {}
    for place in (
        *(folder / name for name in ("base", "a", "b", "c")),
        *(recipes / one.name for one in (*CASES, NEGATIVE)),
    ):
        tensors = {name: one for file in place.glob("*.safetensors") for name, one in load_file(file).items()}
        kept |= {f"{place.name}/{weight}": tensors[weight] for weight in WEIGHTS}
    return kept, versions


def main():
    """Write the fixture."""
    with tempfile.TemporaryDirectory() as folder:
        kept, versions = merged(Path(folder))
    save_file(kept, sys.argv[1] if len(sys.argv) > 1 else FIXTURE, metadata=versions)


if __name__ == "__main__":
    main()
