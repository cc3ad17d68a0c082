"""What `--adapter` may say: a folder, the file of a blend, or several of them with weights."""

import json
import shutil

import pytest

from adapterkit import Base, Blend, Stack
from adapterkit.cli import main
from adapterkit.testing import tiny_llama
from tests.support import EXAMPLE_BASE, make_adapter

PROMPTS = ["where is my card", "a winner"]
ROWS = [{"prompt": prompt, "completion": "yes"} for prompt in PROMPTS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("acting")
    tiny_llama(vocab_size=8192, max_position_embeddings=128).save_pretrained(folder / "base")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(EXAMPLE_BASE / name, folder / "base" / name)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


@pytest.fixture(scope="module")
def base(folder):
    return Base(folder / "base")


@pytest.fixture(scope="module")
def cards(base, folder):
    adapter = make_adapter(base, rank=2, seed=1)
    adapter.save(folder / "cards")
    return adapter


@pytest.fixture(scope="module")
def tone(base, folder):
    adapter = make_adapter(base, rank=3, seed=2)
    adapter.save(folder / "tone")
    adapter.save(folder / "a+b*2")
    return adapter


@pytest.fixture
def run(folder, cards, tone, monkeypatch, capsys):
    monkeypatch.chdir(folder)

    def call(*arguments):
        code = main([str(one) for one in arguments])
        return code, *capsys.readouterr()

    return call


def losses(base, adapter):
    return base.evaluate(ROWS, adapter=adapter, metrics=("accuracy",), max_new_tokens=2, compare=False)["loss"]


def evaluated(run, text):
    options = ("--metrics", "accuracy", "--max-new-tokens", 2, "--no-compare", "--json")
    code, out, err = run("evaluate", "base", "rows.jsonl", "--adapter", text, *options)
    assert code == 0, err
    return json.loads(out)["scores"]["loss"]


def test_a_text_may_be_a_folder_a_blends_file_or_several_with_weights(run, base, folder, cards, tone):
    blend = Blend({cards: 0.7, tone: -0.3})
    blend.save(folder / "mix.json", {cards: folder / "cards", tone: folder / "tone"})
    expected = {
        "cards": cards,
        "mix.json": blend,
        "cards*0.7+tone*-0.3": blend,
        "cards + tone": Stack(cards, tone),
        "cards*0.5": Blend({cards: 0.5}),
        "mix.json*2": Blend({blend: 2.0}),
        "a+b*2": tone,  # a path as a whole
    }
    for text, acting in expected.items():
        assert evaluated(run, text) == losses(base, acting), text
    assert len({losses(base, acting) for acting in expected.values()}) == 6


def test_generate_takes_them_too(run, base, cards, tone):
    code, out, _ = run("generate", "base", *PROMPTS, "--adapter", "cards*0.7+tone*0.3", "--max-new-tokens", 4, "--json")
    assert code == 0
    answers = base.generate(PROMPTS, adapter=Blend({cards: 0.7, tone: 0.3}), max_new_tokens=4)
    assert [row["answer"] for row in json.loads(out)] == answers


def test_compare_names_them(run, base, cards, tone):
    contenders = ("--adapter", "both=cards*0.7+tone*0.3", "--adapter", "one=cards")
    options = ("--metrics", "accuracy", "--max-new-tokens", 2, "--json")
    code, out, _ = run("compare", "base", "rows.jsonl", *contenders, *options)
    assert code == 0
    found = json.loads(out)["adapters"]
    assert found["both"]["scores"]["loss"] == losses(base, Blend({cards: 0.7, tone: 0.3}))
    assert found["one"]["scores"]["loss"] == losses(base, cards)


def test_an_audit_takes_them_too(run, cards, tone):
    code, out, _ = run("audit", "rows.jsonl", "--base", "base", "--adapter", "cards+tone", "--json")
    assert code == 0
    assert json.loads(out)["adapter"] == Stack(cards, tone).digest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("card", "no adapter 'card'; did you mean 'cards'?"),
        ("cards+tome", "no adapter 'tome'; did you mean 'tone'?"),
        ("out/cards*0.5+tone", "no adapter 'out/cards': there is no folder 'out'"),
        ("cards*much+tone", "'cards*much+tone': 'much' is no weight; write name*0.7"),
        ("cards*0.5+", "lacks the name of an adapter"),
        ("cards*nan+tone", "a weight must be a finite number, not nan"),
        ("cards+cards", "names an adapter twice; give it one weight"),
        ("", "lacks the name of an adapter"),
        ("x" * 300, "no adapter 'xxx"),
    ],
)
def test_what_is_wrong_with_a_text_is_said(run, text, said):
    for command in (("generate", "base", "hello"), ("evaluate", "base", "rows.jsonl")):
        code, out, err = run(*command, "--adapter", text)
        assert (code, out) == (2, "")
        assert said in err
    code, _, err = run("compare", "base", "rows.jsonl", "--adapter", f"x={text}")
    assert code == 2
    assert said in err or not text


def test_a_folder_that_holds_no_adapter_is_refused(run, folder):
    code, _, err = run("generate", "base", "hello", "--adapter", "cards+base")
    assert code == 1
    assert "it holds no adapter" in err
