"""Run where mlx-lm is installed: the logits of a model, and of the model with an adapter, as mlx-lm has them."""

import json
import sys
from pathlib import Path

import mlx.core as mx
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load_model


def main(base, adapter):
    ids = mx.array(json.load(sys.stdin))
    model, _ = load_model(Path(base))
    alone = model(ids).tolist()
    sys.stdout.write(json.dumps([alone, load_adapters(model, adapter)(ids).tolist()]))


if __name__ == "__main__":
    main(*sys.argv[1:])
