"""Every method that comes with adapterkit keeps the contract; of those of PEFT, three that act in three ways."""

import pytest

from adapterkit.registry import default_registry
from adapterkit.testing import conformance, run

BRIDGED = ("peft:ia3", "peft:oft", "peft:vera")
METHODS = ("full", "p_tuning", "prefix_tuning", "prompt_tuning", "qlora", *BRIDGED)


@conformance("lora")
def test_lora_keeps_the_contract(check):
    check()


@pytest.mark.parametrize("name", METHODS)
def test_a_bundled_method_keeps_the_contract(name):
    results = run(name)
    assert [result for result in results if result.outcome == "failed"] == []


def test_no_bundled_method_is_left_out():
    registry = default_registry()
    ours = {method.name for method in registry.methods() if registry.provider(method).startswith("adapterkit ")}
    assert {name for name in ours if ":" not in name} | set(BRIDGED) == {"lora", *METHODS}
