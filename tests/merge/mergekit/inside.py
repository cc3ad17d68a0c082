"""Run by make.py in mergekit's own environment: ``python inside.py FOLDER SEED`` merges by every FOLDER/*.yml."""

import sys
from pathlib import Path

import torch
import yaml
from mergekit.scripts.run_yaml import main


class Draws:
    """Stands in for ``torch.bernoulli``: the same numbers for each weight, one model's after another's."""

    def __init__(self, seed, models):
        self.seed, self.models, self.calls = seed, models, 0

    def __call__(self, chances):
        if self.calls % self.models == 0:
            self.stream = torch.Generator().manual_seed(self.seed)
        self.calls += 1
        return (torch.rand(chances.shape, dtype=chances.dtype, generator=self.stream) < chances).to(chances.dtype)


folder, seed = Path(sys.argv[1]), int(sys.argv[2])
for recipe in sorted(folder.glob("*.yml")):
    torch.bernoulli = Draws(seed, len(yaml.safe_load(recipe.read_text())["models"]))
    # what the command mergekit-yaml calls
    main([str(recipe), str(recipe.with_suffix("")), "--no-copy-tokenizer"], standalone_mode=False)
