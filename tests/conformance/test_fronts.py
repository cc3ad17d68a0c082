"""The two ways to run the kit, and what it says of methods that cannot be checked."""

import json
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from adapterkit import BrokenPluginError, ConfigError, UnknownNameError
from adapterkit.cli import main
from adapterkit.testing import CHECKS, CheckFailed, Result, conformance, run
from tests.conformance import seeded
from tests.support import ROOT

SEEDED = str(Path(__file__).with_name("seeded.py"))
QUICK = "config_survives_json"


@pytest.fixture
def command(capsys):
    def call(*arguments):
        code = main(["check", *arguments])
        return code, *capsys.readouterr()

    return call


def parameters(*arguments, **options):
    """What pytest makes tests of."""

    @conformance(*arguments, **options)
    def some_test(check):
        check()

    (mark,) = some_test.pytestmark
    return {parameter.id: parameter for parameter in mark.args[1]}


def outcome(results):
    (result,) = results
    return result.outcome


# -- from Python ------------------------------------------------------------------------------------------------------


def test_results_are_records_in_the_order_of_the_checks():
    names = ["config_survives_json", "configuring_again_changes_nothing"]
    results = run("good", plugin=SEEDED, only=names)
    assert [result.check for result in results] == names
    assert all(isinstance(result, Result) and result.promise and result.outcome == "passed" for result in results)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        results[0].outcome = "failed"


def test_every_check_says_what_it_promises_and_why():
    for check in CHECKS.values():
        promise, _, why = check.promise.partition("\n\n")
        assert promise.endswith("."), check.name
        assert why, check.name


def test_a_plugin_may_be_a_file_a_module_or_an_object():
    class Plugin:
        adapterkit_methods = staticmethod(seeded.adapterkit_methods)

    for plugin in (SEEDED, Path(SEEDED), [SEEDED], seeded, Plugin()):
        assert outcome(run("good", plugin=plugin, only=[QUICK])) == "passed"


def test_an_object_cannot_be_imported_by_another_process():
    class Plugin:
        adapterkit_methods = staticmethod(seeded.adapterkit_methods)

    (result,) = run("good", plugin=Plugin(), only=["a_fresh_process_answers_the_same"])
    assert result.outcome == "does not apply"
    assert "give a file or a module" in result.reason


def test_a_failure_that_is_expected_is_none_until_it_goes_away():
    known = {"a_fresh_adapter_changes_nothing": "issue 12"}
    (result,) = run("starts_off", plugin=SEEDED, expected=known, only=known)
    assert (result.outcome, result.reason) == ("failed as expected", "issue 12")
    (result,) = run("good", plugin=SEEDED, expected=known, only=known)
    assert result.outcome == "failed"
    assert "take it out of `expected`" in result.reason


def test_an_error_of_the_method_is_a_failure_that_says_where():
    (result,) = run("assumes_untied", plugin=SEEDED, only=["acts_on_tied_embeddings"])
    assert result.outcome == "failed"
    assert "KeyError" in result.reason
    assert "seeded.py:" in result.reason


FLOAT_ONLY = """
import torch
from adapterkit import LayerConfig, LayerMethod, hookimpl


class Layer(torch.nn.Module):
    def __init__(self, site, config):
        super().__init__()
        self.up = torch.nn.Linear(site.in_features, site.out_features)

    def forward(self, x, y):
        return y + self.up(x)


@hookimpl
def adapterkit_methods():
    yield LayerMethod("float_only", LayerConfig, Layer)
"""


@pytest.mark.parametrize(
    ("check", "cure"),
    [
        ("acts_on_a_bfloat16_base", "Bring the layer's tensors to the dtype of x"),
        ("every_option_is_served_as_trained", "leave embeddings out by `kinds`"),
    ],
)
def test_a_layer_that_takes_one_dtype_only_is_told_what_helps(tmp_path, check, cure):
    (tmp_path / "float_only.py").write_text(FLOAT_ONLY)
    (result,) = run("float_only", plugin=str(tmp_path / "float_only.py"), only=[check])
    assert result.outcome == "failed"
    assert result.reason.endswith(cure)
    assert "(raised in float_only.py:12, forward)" in result.reason


def test_options_are_the_methods():
    results = run("lora", options={"rank": 3, "target_modules": ["v_proj"]}, only=[QUICK, "lowered_acts_as_trained"])
    assert [result.outcome for result in results] == ["passed", "passed"]
    with pytest.raises(ConfigError, match="did you mean 'rank'"):
        run("lora", options={"rnk": 3}, only=[QUICK])


def test_what_cannot_be_checked_is_said_at_once(tmp_path):
    with pytest.raises(UnknownNameError, match="no method 'lroa'"):
        run("lroa")
    with pytest.raises(UnknownNameError, match="no check 'config'"):
        run("lora", only=["config"])
    with pytest.raises(UnknownNameError, match="no check 'config'"):
        run("lora", expected={"config": "why"})
    (tmp_path / "broken.py").write_text("import not_there")
    with pytest.raises(BrokenPluginError, match="not_there"):
        run("mine", plugin=tmp_path / "broken.py")


# -- in pytest --------------------------------------------------------------------------------------------------------


def test_conformance_is_one_test_for_each_check():
    found = parameters("good", plugin=SEEDED)
    assert list(found) == list(CHECKS)
    found[QUICK].values[0]()


def test_conformance_fails_skips_and_expects_as_pytest_does():
    known = {"a_fresh_adapter_changes_nothing": "issue 12"}
    found = parameters("starts_off", plugin=SEEDED, expected=known)
    check = found["a_fresh_adapter_changes_nothing"]
    with pytest.raises(CheckFailed, match="identity_start"):
        check.values[0]()
    (mark,) = check.marks
    assert (mark.name, mark.kwargs) == ("xfail", {"reason": "issue 12", "strict": True})
    with pytest.raises(pytest.skip.Exception, match="no PEFT form"):
        found["peft_reads_what_is_saved"].values[0]()
    with pytest.raises(UnknownNameError, match="no check 'config'"):
        conformance("good", expected={"config": "why"})


def test_the_kit_needs_no_pytest():
    code = (
        "import sys; sys.modules['pytest'] = None; from adapterkit.testing import run; "
        f"print(run('good', plugin={SEEDED!r}, only=[{QUICK!r}])[0].outcome)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout == "passed\n", done.stderr


# -- from the command line --------------------------------------------------------------------------------------------


def test_the_command_prints_what_passed_and_is_quiet_where_nobody_looks(command):
    assert command("good", "--plugin", SEEDED, "--only", QUICK) == (0, f"passed          {QUICK}\n1 passed\n", "")


def test_the_command_fails_with_the_reason(command):
    fresh, peft = "a_fresh_adapter_changes_nothing", "peft_reads_what_is_saved"
    code, out, err = command("starts_off", "--plugin", SEEDED, "--only", fresh, "--only", peft)
    assert (code, err) == (1, "error: method 'starts_off' fails 1 of 2 checks\n")
    assert out.splitlines()[0] == f"failed          {fresh}"
    assert "start the update at zero" in out
    assert "does not apply  peft_reads_what_is_saved\n    the method has no PEFT form" in out
    assert out.splitlines()[-1] == "1 failed, 1 does not apply"


def test_the_command_gives_records_and_takes_options(command):
    arguments = ["--only", QUICK, "--option", "rank=3", "--option", "target-modules=v_proj", "--json"]
    code, out, _ = command("lora", *arguments)
    (record,) = json.loads(out)
    assert code == 0
    assert (record["check"], record["outcome"], record["reason"]) == (QUICK, "passed", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lroa"], "did you mean 'lora'"),
        (["lora", "--only", "config"], "no check 'config'"),
        (["lora", "--option", "rnk=3"], "did you mean 'rank'"),
        (["lora", "--option", "rank"], "NAME=VALUE"),
    ],
)
def test_a_misuse_of_the_command_is_exit_code_2(command, arguments, said):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_progress_is_for_terminals(command, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    _, out, err = command("good", "--plugin", SEEDED, "--only", QUICK)
    assert QUICK in err
    assert out == f"passed          {QUICK}\n1 passed\n"
