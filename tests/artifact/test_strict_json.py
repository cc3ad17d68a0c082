"""JSON from strangers: one meaning or none, and nothing that what is behind it could not bear."""

import attrs
import pytest

from adapterkit import ArtifactError
from adapterkit.artifact.strict_json import parse_object
from tests.artifact.adapter_folders import contents

LARGEST = (1 << 64) - 1


@pytest.mark.parametrize("number", [0, 1, -1, 1 << 63, LARGEST, -LARGEST])
def test_whole_numbers_of_64_bits_are_read_as_they_are(number):
    assert parse_object(b'{"seed": %d}' % number, "it") == {"seed": number}


@pytest.mark.parametrize("text", [str(LARGEST + 1), str(-LARGEST - 1), "9" * 400, "-" + "9" * 400, "9" * 5000])
def test_larger_ones_are_refused(text):
    with pytest.raises(ArtifactError, match=r"it: the number -?\d+ is too large: it takes more than 64 bits"):
        parse_object(f'{{"deep": [{text}]}}'.encode(), "it")


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def circular():
    value = {}
    value["a"] = value
    return value


@pytest.mark.parametrize(
    "training",
    [{"steps": 10**400}, {"options": nested(100)}, {"options": nested(2000)}, circular()],
    ids=["large", "deep", "deeper", "endless"],
)
def test_what_would_be_refused_when_it_is_read_is_not_written(adapter, saved, training):
    before = contents(saved)
    forged = attrs.evolve(adapter, manifest=attrs.evolve(adapter.manifest, training=training))
    with pytest.raises(ArtifactError, match=r"is not saved to .*(too large|nested too deeply)"):
        forged.save(saved)
    assert contents(saved) == before


def test_a_full_disk_is_said(adapter, saved, monkeypatch):
    from safetensors import SafetensorError

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    before = contents(saved)
    monkeypatch.setattr("adapterkit.artifact.writer.save_file", full)
    with pytest.raises(ArtifactError, match=r"is not saved to .*No space left on device"):
        adapter.save(saved)
    assert contents(saved) == before
