import pytest
import torch

from adapterkit.errors import UnknownNameError
from adapterkit.planning.devices import DEVICES, GIB, find_device


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("4090", "RTX 4090"),
        ("rtx 4090", "RTX 4090"),
        ("RTX4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("Tesla T4", "T4"),
        ("A10G", "A10G"),
        ("A10", "A10"),
        ("l40s", "L40S"),
    ],
)
def test_a_device_is_found_by_what_people_and_drivers_call_it(said, name):
    assert find_device(said).name == name


@pytest.mark.parametrize("said", ["24GB", "24 GiB", "24g"])
def test_of_a_size_nothing_but_the_memory_is_known(said):
    found = find_device(said)
    assert found.memory == 24 * GIB
    assert found.flops is None is found.price


def test_an_unknown_device_suggests_one():
    with pytest.raises(UnknownNameError, match="no device 'RTX 4091'; did you mean 'RTX 4090'"):
        find_device("RTX 4091")
    with pytest.raises(UnknownNameError, match="A size will do"):
        find_device("abacus")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_and_the_cpu_is_what_is_here():
    with pytest.raises(UnknownNameError, match="sees no GPU here"):
        find_device("cuda")
    here = find_device()
    assert here.is_cpu
    assert here.memory > GIB
    assert here.flops > 1e8 < here.bandwidth


def test_every_entry_makes_sense():
    for name, device in DEVICES.items():
        assert device.name == name
        assert 8 * GIB < device.memory < 300 * GIB
        assert 1e13 < device.flops < 1e16
        assert 1e11 < device.bandwidth < 1e13
        assert device.bf16 == (device.generation >= 8)
        assert find_device(name) is device, "its own name finds it"
