"""A manifest proves the folder, or the folder is refused."""

import hashlib
import json
import re
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapterkit import Adapter, ArtifactError, BaseMismatchError
from adapterkit.config import canonical_json
from adapterkit.testing import tiny_llama
from tests.artifact.adapter_folders import CONFIG, WEIGHTS, contents, edit_config, join, make_adapter, split, take


def rewrite(folder, change):
    """Change the manifest and everything in it that vouches for it, as a careful forger would."""
    path = folder / "adapterkit.json"
    values = json.loads(path.read_text())
    change(values)
    for name in values["files"]:
        raw = (folder / name).read_bytes() if (folder / name).exists() else b""
        values["files"][name] = {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
    values["digests"]["config"] = sha256_of(values["config"])
    said = {name: value for name, value in values["config"].items() if value or type(value) in (int, float)}
    content = {"base": values["base"]["fingerprint"], "config": said, "method": values["method"]}
    values["digest"] = sha256_of({**content, "tensors": values["digests"]["tensors"]})
    values["checksum"] = sha256_of({name: value for name, value in values.items() if name != "checksum"})
    path.write_text(json.dumps(values))


def sha256_of(value):
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def test_the_forger_of_these_tests_forges_well(saved, adapter, registry):
    rewrite(saved, lambda values: None)
    assert Adapter.load(saved, registry=registry) == adapter


FORGED = {
    "another alpha": (lambda values: values["config"].update(alpha=16.0), r"disagree on lora_alpha"),
    "other targets": (lambda values: values["config"].update(target_modules=["q_proj"]), r"disagree on target_modules"),
    "another base": (lambda values: values["base"].update(name="org/other"), "disagree on base_model_name_or_path"),
    "an unknown option": (lambda values: values["config"].update(magic=1), "magic: no such option"),
    "an option of another type": (lambda values: values["config"].update(alpha=8), "is not written as method 'lora'"),
    "another schema": (lambda values: values.update(schema=2), "has schema 2; 1 is known here"),
    "an unknown field": (lambda values: values.update(extra=1), "extra: no such option"),
    "a field left out": (lambda values: values.pop("evaluation"), "evaluation: is required"),
    "an unknown method": (lambda values: values.update(method="lorra"), "no method 'lorra'; did you mean 'lora'"),
    "a file left out": (
        lambda values: values["files"].pop(CONFIG),
        "lists adapter_model.safetensors; the folder holds",
    ),
    "a file too many": (lambda values: values["files"].update({"evil.bin": {}}), "lists .*evil.bin"),
    "other tensors": (lambda values: values["digests"].update(tensors="0" * 64), "the tensors are not those"),
    "a base that is no text": (lambda values: values["base"].update(name=1), "base"),
}


@pytest.mark.parametrize(("change", "message"), FORGED.values(), ids=FORGED.keys())
def test_a_manifest_that_tells_another_story_is_refused(saved, registry, change, message):
    rewrite(saved, change)
    with pytest.raises(ArtifactError, match=message):
        Adapter.load(saved, registry=registry)


DAMAGED = {
    "config": (lambda values: values["config"].update(alpha=9.0), "the configuration is not the one"),
    "base": (lambda values: values["base"].update(fingerprint="0"), "the digest is not that of"),
    "digest": (lambda values: values.update(digest="0" * 64), "the digest is not that of"),
    "training": (lambda values: values["training"].update(loss=0.0), "its checksum does not fit"),
    "evaluation": (lambda values: values["evaluation"].update(accuracy=1.0), "its checksum does not fit"),
    "checksum": (lambda values: values.update(checksum=""), "its checksum does not fit"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_each_digest_in_the_manifest_counts(saved, registry, change, message):
    path = saved / "adapterkit.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(ArtifactError, match=message):
        Adapter.load(saved, registry=registry)


def test_weights_that_are_not_the_listed_ones_are_refused(saved, model, registry, tmp_path):
    other = make_adapter(model, use_rslora=True).save(tmp_path / "other", registry=registry)
    shutil.copy(other / CONFIG, saved / CONFIG)
    with pytest.raises(ArtifactError, match=f"{CONFIG} is not the file"):
        Adapter.load(saved, registry=registry)
    header, data = split(other)
    join(other, header, data[:-1] + b"\x00")
    with pytest.raises(ArtifactError, match=f"{WEIGHTS} is not the file"):
        Adapter.load(other, registry=registry)


def test_peft_told_another_story_is_refused(saved, registry):
    edit_config(use_rslora=True)(saved)
    rewrite(saved, lambda values: None)
    with pytest.raises(ArtifactError, match=r"adapter_config\.json and adapterkit\.json disagree on use_rslora"):
        Adapter.load(saved, registry=registry)


def test_an_adapter_of_another_base_is_refused(saved, registry):
    with pytest.raises(BaseMismatchError, match="made for another base: org/tiny abc123") as caught:
        take(saved, tiny_llama(seed=1), registry)
    theirs, ours = re.findall(r"(\w{12})…", str(caught.value))
    assert theirs != ours


def test_a_fingerprint_that_is_none_fits_no_base(saved, model, registry):
    rewrite(saved, lambda values: values["base"].update(fingerprint="anything"))
    with pytest.raises(BaseMismatchError):
        take(saved, model, registry)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_is_seen_or_changes_nothing(saved, adapter, registry, data):
    path = data.draw(st.sampled_from(sorted(saved.iterdir())))
    whole = path.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(flipped)
    try:
        loaded = Adapter.load(saved, registry=registry)
    except ArtifactError:
        assert path.name != "README.md"
    else:
        assert path.name in ("README.md", "adapterkit.json")
        assert loaded == adapter
        assert loaded.manifest == adapter.manifest
    finally:
        path.write_bytes(whole)


def test_reading_leaves_the_folder_as_it_was(saved, registry):
    before = contents(saved)
    Adapter.load(saved, registry=registry)
    assert contents(saved) == before
