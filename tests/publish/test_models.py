"""A model that was baked is an ordinary repository of transformers."""

import json

import pytest

from adapterkit import Base, PublishError, publish
from adapterkit.publishing import revisions
from tests.publish.conftest import ABOUT
from tests.support import EXAMPLE_BASE, make_adapter

URL = "hf://org/whole"


@pytest.fixture
def baked(tmp_path):
    base = Base(EXAMPLE_BASE)
    return base.bake(make_adapter(base, rank=2, scale=0.02), tmp_path / "whole", max_shard_size="10MB").folder


def test_it_is_published_in_its_shards(either_hub, baked):
    publish(baked, URL, **ABOUT)
    files = either_hub.repository("org/whole").files()
    assert {name for name in files if name.endswith(".safetensors")} == {
        path.name for path in baked.glob("*.safetensors")
    }
    assert len(list(baked.glob("*.safetensors"))) > 1
    card = files["README.md"].decode()
    assert 'base_model_relation: "finetune"' in card
    assert 'license: "apache-2.0"' in card


def test_shards_that_are_no_more_go(hub, baked, tmp_path):
    publish(baked, URL, **ABOUT)
    base = Base(EXAMPLE_BASE)
    one = base.bake(make_adapter(base, rank=2, seed=1, scale=0.02), tmp_path / "one").folder
    publish(one, URL, **{**ABOUT, "tag": "v2"})
    names = set(hub.repository("org/whole").files())
    assert {name for name in names if name.endswith(".safetensors")} == {"model.safetensors"}
    assert "model.safetensors.index.json" not in names
    assert len(revisions(URL)) == 2


def test_what_is_no_file_of_a_model_is_not_published(hub, baked):
    (baked / "optimizer.pt").write_bytes(b"state")
    (baked / "generation_config.json").write_text(json.dumps({"note": "hf_" + "a" * 34}))
    with pytest.raises(PublishError) as refused:
        publish(baked, URL, base_model="org/tiny")
    said = str(refused.value)
    for part in ("optimizer.pt", "looks like a secret", "license"):
        assert part in said
    assert "hf_aaa" not in said
    assert not hub.repositories
