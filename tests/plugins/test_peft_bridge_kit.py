"""Each method of the bridge, held to its contract by the kit that anybody's methods are held to."""

import functools

import pytest

from adapterkit.testing import CHECKS, run
from tests.plugins.bridge_cases import OPTIONS, WORKING, name_of

TASKS = "PEFT's model wants task_ids, of which the kit knows nothing"
EXPECTED = {
    "MULTITASK_PROMPT_TUNING": {"peft_reads_what_is_saved": TASKS},
    "POLY": {"peft_reads_what_is_saved": TASKS},
    "RANDLORA": {
        "peft_reads_what_is_saved": "PEFT writes what layers share once for each of them, and warns where it stands once"
    },
    "UNILORA": {"another_base_refuses_the_adapter": "its file holds one vector, whatever the layers' shapes"},
}
GENTLER = {"FOURIERFT": {"scaling": 5.0}}
QUICK = ("IA3", "OFT", "VERA")
"""One that scales, one that multiplies weights and computes what no file holds, and one whose layers share."""


@functools.cache
def results(peft_type):
    options = {**OPTIONS.get(peft_type, {}), **GENTLER.get(peft_type, {})}
    return {one.check: one for one in run(name_of(peft_type), options=options, expected=EXPECTED.get(peft_type))}


@pytest.mark.parametrize(
    "peft_type", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in WORKING]
)
def test_it_keeps_the_contract(peft_type):
    found = results(peft_type)
    assert set(found) == set(CHECKS)
    failed = [f"{one.check}: {one.reason}" for one in found.values() if one.outcome == "failed"]
    assert not failed, "\n".join(failed)
