"""Every method on real rows: trained, saved, loaded in another process, swapped, and mixed with all others."""

import csv
import json
import subprocess
import sys

import pytest
import torch

from adapterkit import Adapter, Base, Registry
from tests.support import DATA, EXAMPLE_BASE, ROOT, losses_of, state_digest

COLUMNS = {"prompt": "text", "completion": "category"}
METHODS = {
    "lora": {"rank": 4, "learning_rate": 4e-3},
    "qlora": {"rank": 4, "learning_rate": 4e-3},
    "prompt_tuning": {"tokens": 8},
    "p_tuning": {"tokens": 8},
    "prefix_tuning": {"tokens": 8},
    "full": {"learning_rate": 1e-3},
    "peft:ia3": {"learning_rate": 2e-2},
    "peft:vera": {"learning_rate": 2e-2, "r": 32},
    "peft:oft": {"learning_rate": 4e-3},
    "ia3": {"learning_rate": 2e-2},
}
IA3 = ROOT / "examples" / "adapterkit-ia3" / "src" / "adapterkit_ia3.py"
SHARED = {"batch_size": 16, "max_steps": 6, "logging_steps": 1, "warmup_ratio": 0.0}

IN_ANOTHER_PROCESS = """
import json, sys, torch
from adapterkit import Base, Registry
plugins = Registry()
if "ia3" not in {plugin.name for plugin in plugins.plugins()}:
    plugins.add(sys.argv[2])
base = Base(sys.argv[1], registry=plugins)
ids = torch.tensor(json.loads(sys.argv[3]))
for folder in sys.argv[4:]:
    adapter = base.load(folder)
    print(json.dumps([adapter.digest, base.logits(ids, adapter=adapter).flatten().view(torch.int32).sum().item()]))
"""


@pytest.fixture(scope="module")
def rows():
    with (DATA / "banking77" / "train.csv").open(encoding="utf-8") as file:
        every = list(csv.DictReader(file))
    return every[:: len(every) // 48][:48]


@pytest.fixture(scope="module")
def trained(rows, tmp_path_factory):
    """One base, an adapter of each method, and where each lies."""
    plugins = Registry()
    if "ia3" not in {plugin.name for plugin in plugins.plugins()}:
        plugins.add(IA3)
    base = Base(EXAMPLE_BASE, registry=plugins)
    before, adapters, folders = state_digest(base.model), {}, {}
    for method, options in METHODS.items():
        folder = tmp_path_factory.mktemp(method.replace(":", "-"))
        adapters[method] = base.train(rows, method=method, columns=COLUMNS, output=folder, **{**SHARED, **options})
        folders[method] = folder
    assert state_digest(base.model) == before, "the shared base has changed"
    return base, adapters, folders


@pytest.fixture(scope="module")
def ids():
    return torch.randint(4, 8000, (len(METHODS) + 1, 9), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", METHODS)
def test_training_lowers_the_loss_of_real_rows(trained, rows, method):
    base, adapters, folders = trained
    losses = losses_of(folders[method])
    assert losses[-1] < losses[0]
    scores = base.evaluate(rows, adapter=adapters[method], columns=COLUMNS, max_new_tokens=1)
    assert scores["loss"] < scores.base["loss"]


def test_each_is_the_same_adapter_in_another_process_bit_by_bit(trained, ids):
    base, adapters, folders = trained
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(EXAMPLE_BASE), str(IA3), json.dumps(ids[:2].tolist())]
    command += [str(folders[method] / "adapter") for method in METHODS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    loaded = [json.loads(line) for line in done.stdout.splitlines()]
    for (digest, total), adapter in zip(loaded, adapters.values(), strict=True):
        mine = base.logits(ids[:2], adapter=adapter).flatten().view(torch.int32).sum().item()
        assert (digest, total) == (adapter.digest, mine), adapter


def test_a_saved_adapter_needs_no_base_to_be_read(trained):
    base, adapters, folders = trained
    for method, adapter in adapters.items():
        assert Adapter.load(folders[method] / "adapter", registry=base.registry) == adapter


def test_swapping_goes_from_any_to_any(trained, ids):
    base, adapters, _ = trained
    alone = {method: base.logits(ids[:1], adapter=adapter) for method, adapter in adapters.items()}
    for method in [*adapters, *reversed(adapters)]:
        base.use(adapters[method])
        assert torch.equal(base.logits(ids[:1], adapter=base.active), alone[method])
    base.use(None)


def test_all_of_them_mix_in_one_batch_and_each_row_is_as_if_alone(trained, ids):
    base, adapters, _ = trained
    chosen = [*adapters.values(), None]
    mixed = base.logits(ids, adapter=chosen)
    for row, adapter in enumerate(chosen):
        solo = base.logits(ids[row : row + 1], adapter=adapter)
        # float32 rounds in the last digit of what is added up, which depends on the shape of the product
        assert (mixed[row : row + 1] - solo).abs().max() < 1e-5 * solo.abs().max(), adapter
    prompts = ["I lost my card", *["How do I top up?"] * len(adapters)]
    answers = base.generate(prompts, adapter=chosen, max_new_tokens=5)
    assert answers == [
        base.generate(prompt, adapter=one, max_new_tokens=5) for prompt, one in zip(prompts, chosen, strict=True)
    ]
