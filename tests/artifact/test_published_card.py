"""The card of what is published: complete, read by the Hub's own client, and with code that can be copied and run."""

import re

import attrs
import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from adapterkit import merge
from adapterkit.artifact.card import Publication, missing, render, render_model
from adapterkit.artifact.card.making import telling_options
from adapterkit.artifact.engines import room_in_vllm
from adapterkit.artifact.layout import MANIFEST
from adapterkit.artifact.markup import front_matter, paragraphs
from adapterkit.artifact.strict_json import parse_object
from adapterkit.registry import default_registry
from adapterkit.testing import tiny_llama
from adapterkit.testing.hub import Hub
from tests.artifact.adapter_folders import make_adapter

SAID = Publication(
    url="hf://org/cards",
    repository="org/cards",
    revision="v1",
    license="other",
    license_name="Our terms",
    license_link="LICENSE",
    datasets=("PolyAI/banking77",),
    language=("en",),
    description="Sorts questions into intents.\n\n- for routing\n- with a person behind it",
    limits="Not for advice.",
)
EVALUATION = {
    "results": [
        {
            "name": "Banking77 test",
            "digest": "a" * 64,
            "rows": 200,
            "of": 3080,
            "scores": {"accuracy": 0.9, "loss": 1e-05, "rouge_l": 0.5},
            "base": {"accuracy": 0.02, "loss": 2.0},
            "intervals": {"accuracy": [0.85, 0.94]},
            "base_intervals": {"accuracy": [0.0, 0.05]},
            "confidence": 0.95,
        },
        {"name": "Banking77: test!", "rows": 1, "scores": {"accuracy": 1.0}},
    ],
    "forgetting": {"name": "general text", "loss": 3.1, "base": 3.0},
}


HOSTILE = [
    "<script>alert(1)</script>",
    "x\n---\nlicense: mit\n---\n",
    "[click](javascript:alert(1))",
    "![x](https://evil.example/pixel.png)",
    "https://evil.example www.evil.example me@evil.example",
    "```\n# Owned",
    "| a | b |\n|---|---|",
    "\u202e\x1b[31m\x00",
    "# Owned\n\nsetext\n===",
]


BAKED = {
    "base": {"name": "org/tiny", "revision": "abc123", "fingerprint": "f" * 64},
    "adapters": [{"method": "lora", "weight": 1.0, "digest": "d" * 64}],
    "dtype": "bfloat16",
    "survived": 0.98765,
    "layers": [{"name": "a.weight", "update": None, "survived": 1.0, "error": 0.01}],
}


@pytest.fixture(scope="module")
def made(model):
    adapter = make_adapter(model)
    return attrs.evolve(adapter, manifest=attrs.evolve(adapter.manifest, evaluation=EVALUATION))


@pytest.fixture
def values(made, registry, tmp_path):
    return content(made, registry, tmp_path / "saved")


def content(adapter, registry, folder):
    return parse_object((adapter.save(folder, registry=registry) / MANIFEST).read_bytes(), MANIFEST)


def blocks(card, language):
    return [part.split("```")[0] for part in card.split(f"```{language}\n")[1:]]


def test_the_hubs_client_reads_all_of_it(values):
    data = ModelCard(render(values, SAID)).data
    assert data.license == "other"
    assert (data.license_name, data.license_link) == ("Our terms", "LICENSE")
    assert (data.datasets, data.language) == (["PolyAI/banking77"], ["en"])
    assert (data.base_model, data.base_model_relation) == ("org/tiny", "adapter")
    assert data.model_name == "cards"
    assert data.metrics == ["accuracy", "rouge"]
    results = data.eval_results
    assert all(isinstance(one, EvalResult) for one in results)
    found = [(one.dataset_name, one.metric_type, one.metric_name, one.metric_value) for one in results]
    assert found == [
        ("Banking77 test", "accuracy", "accuracy", 0.9),
        ("Banking77 test", "loss", "loss", 1e-05),
        ("Banking77 test", "rouge", "rouge_l", 0.5),
        ("Banking77: test!", "accuracy", "accuracy", 1.0),
    ]
    assert results[0].dataset_args == {"rows": 200, "sha256": "a" * 64}


def test_it_comes_back_from_the_hubs_client_as_it_was(values):
    text = render(values, SAID)
    card = ModelCard(text)
    mine = yaml.safe_load(text.split("---\n")[1])
    assert card.data.to_dict() == mine
    assert eval_results_to_model_index("cards", card.data.eval_results) == mine["model-index"]


def test_a_hub_finds_it_valid(values, monkeypatch):
    with Hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        for card in (render(values, SAID), render(values), render_model(BAKED, {"license": "mit"}, SAID)):
            ModelCard(card).validate()
        assert [seen.path for seen in hub.requests] == ["/api/validate-yaml"] * 3
        with pytest.raises(ValueError, match="base_model"):
            ModelCard(render(values, SAID).replace('base_model: "org/tiny"', 'base_model: "/x/y/z"')).validate()


def test_it_says_what_the_issue_of_a_card_is(values):
    body = " ".join(render(values, SAID).split("---\n", 2)[2].split())
    for said in (
        "# cards",
        "Sorts questions into intents. - for routing - with a person behind it",
        "Not for advice.",
        "It was scored on 200 of 3,080 rows of Banking77 test and 1 row of Banking77: test\\!; how it does on anything else is not",
        "| accuracy | 0.9 \\[0.85, 0.94\\] | 0.02 \\[0, 0.05\\] |",
        "| loss (less is better) | 1e-05 | 2 |",
        "the 95% interval",
        "The perplexity is 10.5% above the base's: it has lost some of what the base could do.",
        "| trained on |",
        "| seed | 42 |",
        "| plugin | adapterkit 0.1.0 |",
    ):
        assert said in body
    assert "information needed" not in body.lower()


def test_its_code_loads_what_was_published(values):
    card = render(values, SAID)
    ours, peft = blocks(card, "python")
    assert 'base = Base("org/tiny", revision="abc123")\nadapter = base.load("hf://org/cards@v1")' in ours
    assert 'AutoModelForCausalLM.from_pretrained("org/tiny", revision="abc123")' in peft
    assert 'PeftModel.from_pretrained(model, "org/cards", revision="v1")' in peft
    for block in (ours, peft):
        compile(block, "card", "exec")
    (shell,) = blocks(card, "bash")
    assert shell == (
        "hf download org/cards --revision v1 --local-dir cards\n"
        "vllm serve org/tiny --revision abc123 \\\n  --enable-lora --max-lora-rank 8 --lora-modules cards=cards\n"
    )


def test_without_a_tag_the_newest_version_is_loaded(values):
    card = render(values, attrs.evolve(SAID, revision=""))
    assert 'base.load("hf://org/cards")' in card
    assert 'PeftModel.from_pretrained(model, "org/cards")' in card
    assert "hf download org/cards --local-dir cards\n" in card


def test_elsewhere_than_on_the_hub_peft_takes_a_folder(values):
    card = render(values, Publication(url="s3://bucket/cards", revision="v1"))
    assert 'base.load("s3://bucket/cards@v1")' in card
    assert 'PeftModel.from_pretrained(model, "path/to/this/folder")' in card
    assert "hf download" not in card


def test_what_vllm_does_not_read_is_exported_first_or_said(model, registry, tmp_path):
    uneven = content(make_adapter(model, rank_pattern={"q_proj": 20}), registry, tmp_path / "a")
    (shell,) = blocks(render(uneven, SAID), "bash")
    assert "adapterkit export cards cards-vllm --to vllm\n" in shell
    assert "--max-lora-rank 32 --lora-modules cards=cards-vllm" in shell
    unread = {**uneven, "engines": {**uneven["engines"], "vllm": {"fits": "no", "reason": "it is DoRA"}}}
    card = render(unread, SAID)
    assert not blocks(card, "bash")
    assert "| vLLM | no | it is DoRA |" in card


@pytest.mark.parametrize(("rank", "room"), [(1, 1), (2, 8), (16, 16), (17, 32), (300, 320), (512, 512)])
def test_vllm_is_given_a_rank_that_it_takes(rank, room):
    assert room_in_vllm(rank) == room


def test_a_published_card_names_no_folder_of_this_machine(model, registry, tmp_path):
    adapter = make_adapter(model)
    base = attrs.evolve(adapter.manifest.base, name="/home/me/models/tiny", revision="")
    adapter = attrs.evolve(adapter, manifest=attrs.evolve(adapter.manifest, base=base))
    values = content(adapter, registry, tmp_path / "a")
    assert "/home/me" not in render(values, SAID)
    assert 'Base("path/to/base")' in render(values, SAID)
    named = render(values, attrs.evolve(SAID, base_model="org/tiny", base_revision="f00"))
    assert 'Base("org/tiny", revision="f00")' in named
    assert yaml.safe_load(named.split("---\n")[1])["base_model"] == "org/tiny"


def test_a_merged_one_says_what_it_was_made_of(registry, tmp_path):
    model = tiny_llama()
    one, other = make_adapter(model), make_adapter(model, rank=2)
    merged = merge([one, other], [0.7, -0.3], "svd", rank=3, registry=default_registry())
    values = content(merged, registry, tmp_path / "m")
    card = render(values, SAID)
    head = ModelCard(card).data
    assert (head.base_model_relation, head.tags[:3]) == ("adapter", ["adapterkit", "lora", "merge"])
    assert f"| 0.7 | lora | {one.digest} |\n| -0.3 | lora | {other.digest} |" in card
    assert "2 adapters, merged by the strategy svd without further training." in card
    assert re.search(r"\d+\.\d% of the change, by its norm, did not fit into the rank and was cut off", card)
    assert "It was made of other adapters without further training" in card


def test_a_baked_model_is_a_fine_tune_of_its_base():
    card = render_model(BAKED, {"license": "mit"}, attrs.evolve(SAID, license=""))
    data = ModelCard(card).data
    assert (data.base_model, data.base_model_relation, data.library_name) == ("org/tiny", "finetune", "transformers")
    assert (data.license, data.language) == ("mit", ["en"])
    assert "No scores of this model are recorded" in card
    (python,), (shell,) = blocks(card, "python"), blocks(card, "bash")
    assert 'AutoModelForCausalLM.from_pretrained("org/cards", revision="v1")' in python
    assert shell == "vllm serve org/cards --revision v1\n"
    assert missing(BAKED, SAID) == []
    merged = {**BAKED, "adapters": BAKED["adapters"] * 2}
    assert ModelCard(render_model(merged)).data.base_model_relation == "merge"
    assert ModelCard(render_model(BAKED, {"license": "mit"}, SAID)).data.license == "other", "who publishes it says"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_bake_makes_a_harmless_card(text):
    layers = [{"name": text, "update": 0.1, "survived": 1.0, "error": 0.01}]
    parts = [{"method": text, "weight": text, "digest": text}]
    base = {"name": text, "revision": text, "fingerprint": text}
    card = render_model({**BAKED, "layers": layers, "adapters": parts, "base": base, "dtype": text}, {"license": text})
    head, body = card.split("\n---\n", 1)
    assert yaml.safe_load(head.removeprefix("---\n"))["license"] == text
    html = MarkdownIt("gfm-like", {"linkify": False}).render(body)
    assert (html.count("<h1"), html.count("<table"), html.count("<script"), html.count("<a ")) == (1, 2, 0, 0)


# -- what is missing ------------------------------------------------------------------------------------------------------


def test_nothing_is_missing_from_a_complete_one(values):
    scored = {**values, "evaluation": {"results": EVALUATION["results"][:1]}}
    assert missing(scored, SAID) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"license": ""}, "license: nobody may use what has none"),
        ({"license": "Apache 2.0"}, "license: 'Apache 2.0' is no name that the Hub has"),
        ({"license_link": ""}, "license: 'other' needs license_name and license_link"),
        ({"base_model": "./tiny"}, "base_model: './tiny' is no id of the Hub"),
        ({"language": ("English",)}, "language: 'English' is no ISO 639 code"),
        ({"datasets": ("train.csv/x/y",)}, "datasets: 'train.csv/x/y' is no id of the Hub"),
        ({"repository": "a/b/c"}, "repository: 'a/b/c' is no id of the Hub"),
    ],
)
def test_each_thing_that_is_missing_is_a_line_with_its_cure(values, change, said):
    scored = {**values, "evaluation": {"results": EVALUATION["results"][:1]}}
    (line,) = missing(scored, attrs.evolve(SAID, **change))
    assert line.startswith(said)


def test_scores_and_a_base_are_asked_for(values):
    (line,) = missing({**values, "evaluation": {}}, SAID)
    assert line.startswith("evaluation: there are no scores: `adapterkit evaluate BASE DATA --adapter FOLDER --save`")
    (line,) = missing(values, SAID)
    assert line.startswith("evaluation: 'Banking77: test!' has no scores of the base beside")
    local = {**values, "evaluation": {"results": EVALUATION["results"][:1]}, "base": {"name": "/x/y", "revision": ""}}
    (line,) = missing(local, SAID)
    assert line.startswith("base_model: '/x/y' is a folder of one machine: say which model of the Hub it is")
    assert missing(local, attrs.evolve(SAID, base_model="org/tiny")) == []
    assert missing(local, attrs.evolve(SAID, repository="")) == [], "a bucket needs no id of the Hub"


# -- texts of strangers ---------------------------------------------------------------------------------------------------


def hostile(values, text):
    """The same content with a stranger's text wherever the loader lets one through."""
    results = [{**EVALUATION["results"][0], "name": text, "scores": {text: 0.5}, "base": {text: 0.1}}]
    return {
        **values,
        "method": text,
        "plugin": text,
        "config": {text: text, "rank": 4},
        "base": {"name": text, "revision": text, "fingerprint": text},
        "training": {"data": {"rows": 3, "files": [text], "digest": text}, "options": {text: text}, text: text},
        "evaluation": {"results": results, "forgetting": {"name": text, "loss": 1.0, "base": 1.0}},
        "versions": {text: text},
        "lineage": {
            "kind": "merge",
            "strategy": text,
            "parents": [{"digest": text, "method": text}],
            "options": {text: 1},
        },
        "engines": {"vllm": {"fits": "after export", "reason": text}},
    }


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_manifest_makes_a_harmless_card(values, text):
    calm = MarkdownIt("gfm-like", {"linkify": False}).render(render(hostile(values, "calm"), SAID).split("---\n", 2)[2])
    card = render(hostile(values, text), attrs.evolve(SAID, description=text, limits=text))
    head, body = card.split("\n---\n", 1)
    data = yaml.safe_load(head.removeprefix("---\n"))
    assert data["license"] == "other"
    assert data["model-index"][0]["results"][0]["dataset"]["name"] == text
    html = MarkdownIt("gfm-like", {"linkify": False}).render(body)
    bare = re.sub(r"(?s)```.*?```|\]\(https://huggingface.co/org/tiny\)", "", body)
    assert not re.search(r"(?<!\\)://|www\.|(?<!\\)@", bare), "GitHub and the Hub make links of bare addresses"
    for mark in ("<script", "<img", "<h1", "<table"):
        assert html.count(mark) == {"<h1": 1, "<table": calm.count("<table")}.get(mark, 0)
    assert set(re.findall(r'href="([^"]*)"', html)) <= {"https://huggingface.co/org/tiny"}
    assert "\x1b" not in body
    assert "\x00" not in body


@pytest.mark.parametrize("lineage", [{}, {"kind": "extract"}, {"kind": 3, "x": [1]}, {"kind": "merge", "parents": 7}])
@pytest.mark.parametrize("training", [{}, {"data": 3}, {"options": [], "loss": "x"}, {"data": {"rows": "x"}}])
@pytest.mark.parametrize("evaluation", [{}, {"results": 3}, {"results": [3, {"name": 1}], "forgetting": {"loss": "x"}}])
def test_a_manifest_that_says_odd_things_has_a_card_too(values, lineage, training, evaluation):
    odd = {**values, "lineage": lineage, "training": training, "evaluation": evaluation}
    assert ModelCard(render(odd, SAID)).data.eval_results is None


@given(st.text())
def test_any_text_stays_text_in_its_paragraphs(text):
    html = MarkdownIt("gfm-like", {"linkify": False}).render("\n\n".join(paragraphs(text)))
    assert not re.search(r"<(?!/?(p|ul|li|br)\b)", html)


@given(
    st.recursive(
        st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans(),
        lambda inner: st.dictionaries(st.sampled_from("abc"), inner | st.lists(inner, min_size=1), min_size=1),
    )
)
def test_any_nested_metadata_comes_back(value):
    values = {"x": value}
    assert yaml.safe_load(front_matter(values).removeprefix("---\n").removesuffix("\n---")) == values


def test_options_that_are_as_always_are_left_out():
    told = telling_options({"epochs": 1.0, "max_steps": 5, "weight_decay": 0.1, "packing": True, "bf16": False}, 5)
    assert told == {"weight_decay": 0.1}
