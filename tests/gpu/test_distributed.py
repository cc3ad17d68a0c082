"""What only several GPUs show: NCCL, a GPU for each process, a base that goes from the host's memory to its pieces."""

import json
import subprocess
import sys

import pytest
import torch

from adapterkit import Adapter
from adapterkit.cli.processes import COMMAND
from tests.support import EXAMPLE_BASE

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
]
ROWS = [{"prompt": f"question {n} {'of many words ' * (n % 5)}", "completion": ("yes", "no")[n % 2]} for n in range(18)]
EXACT = ("--no-bf16", "--dtype", "float32", "--no-use-fused-kernels")


def train(folder, name, *options):
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    words = [
        "train",
        str(EXAMPLE_BASE),
        str(file),
        "--output",
        str(folder / name),
        "--batch-size",
        "4",
        "--epochs",
        "2",
    ]
    command = [sys.executable, "-c", COMMAND, *words, "--no-report", "--learning-rate", "3e-3", "--logging-steps", "1"]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=300)


def tensors(folder, name):
    return Adapter.load(folder / name / "adapter").tensors


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    done = train(folder, "alone", "--gradient-accumulation-steps", "2", *EXACT)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("options", [(), ("--fsdp",), ("--fsdp", "--gradient-checkpointing")])
def test_two_gpus_learn_what_one_does(alone, options):
    name = "-".join(("shared", *options))
    done = train(alone, name, "--processes", "2", *EXACT, *options)
    assert done.returncode == 0, done.stderr
    record = json.loads((alone / name / "run.json").read_text())
    assert (record["processes"], record["options"]["fsdp"]) == (2, "--fsdp" in options)
    expected = tensors(alone, "alone")
    for key, tensor in tensors(alone, name).items():
        torch.testing.assert_close(tensor, expected[key], atol=1e-4, rtol=0)


def test_the_fast_way_divides_a_base_as_well(alone):
    done = train(
        alone,
        "fast",
        "--processes",
        "2",
        "--fsdp",
        "--dtype",
        "bfloat16",
        "--activation-offload",
        "--gradient-checkpointing",
    )
    assert done.returncode == 0, done.stderr
    losses = [json.loads(line).get("loss") for line in (alone / "fast" / "log.jsonl").read_text().splitlines()]
    found = [loss for loss in losses if loss is not None]
    assert found[-1] < found[0] - 0.3


def test_two_processes_on_one_gpu_are_refused(alone):
    done = train(alone, "crowded", "--processes", "2", "--device", "cuda:0")
    assert done.returncode == 2
    assert "processes 0 and 1 compute on the same GPU" in done.stderr
