"""The card says what the manifest knows, and a stranger's text in it stays text."""

import attrs
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from adapterkit import Adapter
from adapterkit.artifact.engines import ENGINES, judge
from adapterkit.artifact.markup import front_matter, plain, table


def card(adapter, folder, registry, **changes):
    base = attrs.evolve(adapter.manifest.base, **changes)
    other = attrs.evolve(adapter, manifest=attrs.evolve(adapter.manifest, base=base))
    text = (other.save(folder, registry=registry) / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_it_names_the_base_the_method_the_run_the_scores_and_the_proof(adapter, registry, tmp_path):
    head, body = card(adapter, tmp_path / "a", registry)
    assert head == {
        "base_model": "org/tiny",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["adapterkit", "lora", "base_model:adapter:org/tiny"],
        "metrics": ["accuracy"],
        "model-index": [
            {
                "name": "lora adapter",
                "results": [
                    {
                        "task": {"type": "text-generation", "name": "Text generation"},
                        "dataset": {"name": "test.csv", "type": "test-csv"},
                        "metrics": [{"type": "accuracy", "value": 0.5, "name": "accuracy"}],
                    }
                ],
            }
        ],
    }
    assert "# lora adapter for org/tiny" in body
    assert "| rank | 4 |" in body
    assert f"| trained on |  | 200 |  | {'f' * 64} |" in body
    assert "It was trained on 200 rows, and is for prompts like those. It was scored on test.csv" in body
    assert "| accuracy | 0.5 | 0.25 |" in body
    assert 'Base("org/tiny", revision="abc123")' in body
    assert "PeftModel.from_pretrained" in body
    assert adapter.digest in body
    assert "information needed" not in body.lower()


def test_what_is_not_known_has_no_section(adapter, registry, tmp_path):
    bare = Adapter("lora", adapter.config, adapter.tensors)
    head, body = card(bare, tmp_path / "a", registry)
    assert "base_model" not in head
    for part in ("How it was trained", "How well it does", "Forgetting", "## Made with", "With PEFT", "fingerprint"):
        assert part not in body
    assert "What it was trained on is not recorded. It has not been scored: how well it answers is not known." in body


@pytest.mark.parametrize("name", ["/home/me/model", "./model", "a/b/c", "-x/y"])
def test_a_folder_of_somebodys_machine_is_no_hub_id(adapter, registry, tmp_path, name):
    head, _ = card(adapter, tmp_path / "a", registry, name=name)
    assert "base_model" not in head


@pytest.mark.parametrize(
    "name",
    [
        "x\n---\nlicense: mit",
        "x\n# Owned",
        "a|b|c",
        "<script>x</script>",
        "```\nx",
        '"), exec("x',
        "[x](http://x)",
        "\u2028x\x85",
        "\\",
        "a\U0001f600",
    ],
)
def test_a_name_cannot_break_out(adapter, registry, tmp_path, name):
    clean_head, clean = card(adapter, tmp_path / "clean", registry, name="/x")
    head, body = card(adapter, tmp_path / "a", registry, name=name)
    assert head == clean_head
    assert len(body.splitlines()) == len(clean.splitlines())
    assert [line for line in body.splitlines() if line.startswith("## ")] == [
        line for line in clean.splitlines() if line.startswith("## ")
    ]
    assert "<script>" not in body
    for block in body.split("```python\n")[1:]:
        code = compile(block.split("```")[0], "card", "exec")
        assert name in code.co_consts


@given(st.text(), st.lists(st.text()))
def test_any_text_comes_back_from_the_front_matter(text, items):
    block = front_matter({"one": text, "many": items}).removeprefix("---\n").removesuffix("\n---")
    assert "\n---" not in block
    assert yaml.safe_load(block) == {"one": text, "many": items or None}


@given(st.text())
def test_any_text_is_one_cell(text):
    row = table(("a",), [(text,)]).split("\n")
    assert len(row) == 3
    assert not set(plain(text)) & set("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")


PLAIN = {"peft_type": "LORA", "r": 8, "bias": "none"}
NAMES = ("a.lora_A.weight", "a.lora_B.weight")


@pytest.mark.parametrize(
    ("fields", "names", "fitting"),
    [
        (PLAIN, NAMES, set(ENGINES)),
        ({**PLAIN, "use_rslora": True}, NAMES, set(ENGINES)),
        ({**PLAIN, "rank_pattern": {"a": 2}}, NAMES, set(ENGINES)),
        ({**PLAIN, "use_dora": True}, NAMES, set()),
        ({**PLAIN, "r": 1024}, NAMES, set(ENGINES) - {"vllm"}),
        (PLAIN, (*NAMES, "a.lora_magnitude_vector"), set()),
        ({"peft_type": "IA3"}, ("a.ia3_l",), set()),
        (None, ("a.x",), set()),
    ],
)
def test_engines_are_told_what_they_can_read(fields, names, fitting):
    verdicts = judge(fields, names)
    assert {engine for engine, verdict in verdicts.items() if verdict["fits"] != "no"} == fitting
    assert all(verdict["reason"] for verdict in verdicts.values())


@pytest.mark.parametrize(
    ("fields", "at_once"),
    [
        (PLAIN, {"vllm", "sglang"}),
        ({**PLAIN, "use_rslora": True}, {"vllm"}),
        ({**PLAIN, "rank_pattern": {"a": 2}}, set()),
        ({**PLAIN, "alpha_pattern": {"a": 2}}, set()),
    ],
)
def test_what_an_export_makes_plain_is_told_apart_from_what_fits_as_it_is(fields, at_once):
    verdicts = judge(fields, NAMES)
    assert {engine for engine, verdict in verdicts.items() if verdict["fits"] == "yes"} == at_once
    assert all("export" in verdict["reason"] for verdict in verdicts.values() if verdict["fits"] == "after export")
