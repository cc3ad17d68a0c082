"""A stranger's folder is refused with the reason, and nothing is changed by the attempt."""

import hashlib
import json
import os
import pickle
import shutil
import struct
import time
import tracemalloc

import pytest
import torch

from adapterkit import Adapter, AdapterkitError, ArtifactError
from tests.artifact.adapter_folders import (
    CONFIG,
    PREFIX,
    WEIGHTS,
    add_tensor,
    edit_config,
    edit_header,
    first,
    join,
    rename_tensor,
    split,
    take,
    write_config,
)

Q = PREFIX + "model.layers.0.self_attn.q_proj"
NAN, INFINITY = struct.pack("<f", float("nan")), struct.pack("<f", float("inf"))


def drop_first(folder):
    """Leave the first tensor of the file out, bytes and all."""
    header, data = split(folder)
    entry = header.pop(first(header))
    size = entry["data_offsets"][1]
    for other in header.values():
        if "data_offsets" in other:
            other["data_offsets"] = [offset - size for offset in other["data_offsets"]]
    join(folder, header, data[size:])


def set_first(**changes):
    """A step that changes the description of the first tensor, of 4 times 32 numbers."""
    return edit_header(lambda header: header[first(header)].update(changes))


def poison(value):
    def step(folder):
        header, data = split(folder)
        join(folder, header, data[:-4] + value)

    return step


def empty_tensors(count):
    one = '"{}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    return lambda folder: join(folder, "{" + ",".join(one.format(f"{Q}.{i}") for i in range(count)) + "}", b"")


def raw_header(text, data=b""):
    return lambda folder: join(folder, text, data)


def twice_in_header(folder):
    header, data = split(folder)
    name = json.dumps(first(header))
    text = json.dumps(header)
    join(folder, f"{text[:-1]}, {name}: {json.dumps(header[first(header)])}}}", data)


def overlap(header):
    names = [name for name in header if name != "__metadata__"]
    header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]
    header[names[1]]["shape"] = header[names[0]]["shape"]


def gap(folder):
    header, data = split(folder)
    for entry in header.values():
        if "data_offsets" in entry:
            entry["data_offsets"] = [offset + 8 for offset in entry["data_offsets"]]
    join(folder, header, bytes(8) + data)


def cut(count):
    return lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:count])


def append(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes() + b"#!/bin/sh")


def only_pickle(folder):
    (folder / WEIGHTS).unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({"a": 1}))


def link_out(name):
    def step(folder):
        outside = folder.parent / "outside"
        shutil.move(folder / name, outside)
        (folder / name).symlink_to(outside)

    return step


def replace_by(make):
    def step(folder):
        (folder / WEIGHTS).unlink()
        make(folder / WEIGHTS)

    return step


HOSTILE = {
    # names
    "a base weight": (add_tensor(PREFIX + "model.norm.weight"), r"unexpected: model\.norm\.weight \(named like one of"),
    "a base layer": (add_tensor(f"{Q}.base_layer.weight"), r"base_layer\.weight \(one of the base's own weights\)"),
    "another adapter's": (add_tensor(f"{Q}.lora_A.other.weight"), r"other\.weight \(a tensor of another adapter\)"),
    "extra": (add_tensor(f"{Q}.lora_C.weight"), r"1 unexpected: .*lora_C\.weight"),
    "extra on a layer that is no target": (
        add_tensor(PREFIX + "model.layers.0.self_attn.k_proj.lora_A.weight"),
        r"1 unexpected: .*k_proj\.lora_A\.weight",
    ),
    "missing": (drop_first, r"1 missing: .*lora_A\.weight"),
    "renamed": (
        rename_tensor(lambda name: name.replace("layers.0", "layers.7")),
        r"1 missing: .*layers\.0.*\n.*unexpected: .*7",
    ),
    "another prefix": (rename_tensor(lambda name: name.removeprefix("base_model.")), "is not named as PEFT does"),
    "no prefix": (rename_tensor(lambda name: name.removeprefix(PREFIX)), "is not named as PEFT does"),
    "prefix alone": (rename_tensor(lambda name: PREFIX), "not named by a path of modules"),
    "a path": (rename_tensor(lambda name: PREFIX + "../../etc/passwd"), "not named by a path of modules"),
    "an absolute path": (rename_tensor(lambda name: PREFIX + "/etc/passwd"), "not named by a path of modules"),
    "a backslash": (rename_tensor(lambda name: name + "\\x"), "not named by a path of modules"),
    "a control character": (rename_tensor(lambda name: name + "\x1b[2J"), "not named by a path of modules"),
    "a name without end": (rename_tensor(lambda name: name + "a" * 600), "not named by a path of modules"),
    # numbers
    "another shape": (set_first(shape=[128]), r"1 of another shape: .*lora_A\.weight \(128,\) instead of \(4, 32\)"),
    "int8": (set_first(dtype="I8", shape=[512]), "has the type 'I8'"),
    "bool": (set_first(dtype="BOOL", shape=[512]), "has the type 'BOOL'"),
    "a type that is none": (set_first(dtype=["F32"]), r"has the type \['F32'\]"),
    "NaN": (poison(NAN), "holds NaN or infinity"),
    "infinity": (poison(INFINITY), "holds NaN or infinity"),
    "alpha": (edit_config(lora_alpha=1e9), r"alpha: .*1000000"),
    "rank": (edit_config(r=10**6), r"rank: .*16384"),
    "rank of one layer": (edit_config(rank_pattern={"q_proj": 10**6}), "rank_pattern"),
    "alpha beyond a float": (
        lambda folder: write_config((folder / CONFIG).read_text().replace('"lora_alpha": 8', '"lora_alpha": 1e999'))(
            folder
        ),
        "the number 1e999 is too large",
    ),
    # the header
    "a name twice": (twice_in_header, r"header: the key '.*' comes twice"),
    "a key twice in a tensor": (
        raw_header('{"base_model.model.a":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
        "header: the key 'dtype' comes twice",
    ),
    "600,000 empty tensors": (empty_tensors(600_000), "header claims .* bytes"),
    "300,000 empty tensors": (empty_tensors(300_000), "header names more than 200,000 tensors"),
    "one empty tensor": (add_tensor(f"{Q}.x", shape=(0,)), "a tensor is empty"),
    "no tensors": (raw_header("{}"), "holds no tensors"),
    "a length beyond the file": (replace_by(lambda path: path.write_bytes(struct.pack("<Q", 1000) + b"{}")), "cut off"),
    "a length beyond memory": (
        replace_by(lambda path: path.write_bytes(struct.pack("<Q", 2**63) + b"{}")),
        "header claims 9,223,372,036,854,775,808 bytes",
    ),
    "an empty file": (replace_by(lambda path: path.write_bytes(b"")), "cut off"),
    "cut off in the data": (cut(-10), r"it is cut off: its tensors end"),
    "cut off in the header": (cut(100), "header is not complete"),
    "trailing bytes": (append, "has bytes that belong to no tensor"),
    "overlapping tensors": (edit_header(overlap), "overlaps another"),
    "a gap": (gap, "leaves a gap"),
    "a size that is not the shape's": (set_first(shape=[3]), "which its shape and type do not"),
    "true for a number": (set_first(shape=[True, 128]), r"has the shape \[True, 128\]"),
    "a negative number": (set_first(shape=[-4, -32]), r"has the shape"),
    "nine dimensions": (set_first(shape=[128, 1, 1, 1, 1, 1, 1, 1, 1]), r"has the shape"),
    "a product that overflows": (set_first(shape=[2**40, 2**40]), "which its shape and type do not"),
    "one offset": (set_first(data_offsets=[0]), r"has the offsets \[0\]"),
    "a fourth field": (set_first(strides=[1]), "header does not describe"),
    "metadata that are no texts": (edit_header(lambda header: header.update(__metadata__={"a": {}})), "metadata"),
    "a header that is a list": (raw_header("[]"), "header is not a JSON object"),
    "a header that is no JSON": (raw_header("{'a': 1}"), "header is not valid JSON"),
    "a header that is no text": (raw_header(b"\xff\xfe{}"), "header is not valid JSON"),
    "a header of brackets": (raw_header('{"a":' + "[" * 100_000 + "]" * 100_000 + "}"), "header is nested too deeply"),
    # the configuration
    "an unknown field": (edit_config(use_magic=True), "use_magic"),
    "a field for something else": (edit_config(lora_bias=True), "lora_bias"),
    "a key twice": (write_config('{"peft_type": "LORA", "r": 4, "r": 8}'), "the key 'r' comes twice"),
    "a configuration that is a list": (write_config("[]"), "must hold a JSON object, not list"),
    "a configuration that is no JSON": (write_config("{"), "is not valid JSON"),
    "a configuration of brackets": (write_config("[" * 400_000), "nested too deeply"),
    "a deep value": (edit_config(rank_pattern=json.loads("[" * 40 + "]" * 40)), "at most 32 levels"),
    "NaN in the configuration": (edit_config(lora_alpha=float("nan")), "NaN is not a JSON number"),
    "half a character": (write_config('{"peft_type": "\\ud800"}'), "is not valid JSON"),
    "a configuration of 2 MB": (write_config('{"a": "' + "a" * 2_000_000 + '"}'), "at most 1,048,576 are read"),
    "no method": (edit_config(peft_type=None), "names no method"),
    "an unknown method": (edit_config(peft_type="EVIL"), "no method here reads peft_type 'EVIL'"),
    "a base that is no text": (edit_config(base_model_name_or_path=["x"]), "are not texts"),
    "a value of another type": (edit_config(r="8"), "rank: must be a whole number"),
    # the folder
    "a pickle": (only_pickle, "adapter_model.bin is a pickle"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), f"{WEIGHTS} is missing"),
    "no configuration": (lambda folder: (folder / CONFIG).unlink(), "it holds no adapter"),
    "weights behind a link": (link_out(WEIGHTS), "leads out of the folder"),
    "a configuration behind a link": (link_out(CONFIG), "leads out of the folder"),
    "a link to nothing": (replace_by(lambda path: path.symlink_to("nothing")), f"{WEIGHTS} is missing"),
    "a link to itself": (replace_by(lambda path: path.symlink_to(path.name)), f"{WEIGHTS} cannot be opened"),
    "a link to a device": (replace_by(lambda path: path.symlink_to("/dev/zero")), "leads out of the folder"),
    "a FIFO": (replace_by(os.mkfifo), "is not a regular file"),
    "a folder for a file": (replace_by(os.mkdir), "is not a regular file"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("damage", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_folder_is_refused_by_name(stock, model, registry, damage, message):
    assert take(stock, model, registry)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    damage(stock)
    with pytest.raises(ArtifactError, match=message):
        take(stock, model, registry)
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())


def test_a_pattern_that_takes_forever_is_refused_soon(stock, model, registry):
    edit_config(target_modules="(.*)*(.*)*(.*)*(.*)*\\d\\d\\d$")(stock)
    start = time.process_time()
    with pytest.raises(AdapterkitError):
        take(stock, model, registry)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("count", [600_000, 300_000, 190_000])
def test_a_flood_of_empty_tensors_costs_neither_time_nor_memory(stock, registry, count):
    empty_tensors(count)(stock)
    start = time.process_time()
    with pytest.raises(ArtifactError):
        Adapter.load(stock, registry=registry)
    assert time.process_time() - start < 1
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError):
            Adapter.load(stock, registry=registry)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def test_a_sparse_file_takes_no_memory(stock, registry):
    size = 1 << 40
    join(stock, {f"{Q}.lora_A.weight": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}, b"")
    with (stock / WEIGHTS).open("r+b") as file:
        file.truncate(file.seek(0, 2) + size)
    with pytest.raises(ArtifactError, match="at most 34,359,738,368 are read"):
        Adapter.load(stock, registry=registry)


def test_a_folder_that_is_not_there_and_one_that_is_empty(tmp_path, registry):
    with pytest.raises(ArtifactError, match="there is no such folder"):
        Adapter.load(tmp_path / "nowhere", registry=registry)
    with pytest.raises(ArtifactError, match=r"neither adapterkit\.json nor adapter_config\.json"):
        Adapter.load(tmp_path, registry=registry)
    (tmp_path / "file").write_text("{}")
    with pytest.raises(ArtifactError, match="this is not a folder"):
        Adapter.load(tmp_path / "file", registry=registry)


def grow(path):
    with path.open("ab") as file:
        file.write(bytes(2_000_000))


def shrink(path):
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("case", [(CONFIG, grow, "grew"), (WEIGHTS, grow, "grew"), (WEIGHTS, shrink, "shrank")])
def test_a_file_that_changes_while_it_is_read_is_refused(stock, registry, monkeypatch, case):
    name, change, message = case
    fstat = os.fstat

    def fstat_then_change(descriptor):
        state = fstat(descriptor)
        if state.st_ino == (stock / name).stat().st_ino:
            change(stock / name)
        return state

    monkeypatch.setattr(os, "fstat", fstat_then_change)
    with pytest.raises(ArtifactError, match=f"{message} while it was read"):
        Adapter.load(stock, registry=registry)


# -- links that are allowed -------------------------------------------------------------------------------------------


def cached(folder, cache, *, target):
    """The folder as the Hugging Face cache holds it: a snapshot of links into ``target``."""
    snapshot = cache / "models--org--name" / "snapshots" / ("c" * 40)
    blobs = (snapshot / target).resolve()
    snapshot.mkdir(parents=True)
    blobs.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, blobs / digest)
        (snapshot / path.name).symlink_to(f"{target}/{digest}")
    return snapshot


def test_a_snapshot_in_the_hugging_face_cache_is_read(saved, adapter, registry, tmp_path):
    assert Adapter.load(cached(saved, tmp_path / "hub", target="../../blobs"), registry=registry) == adapter


@pytest.mark.parametrize("target", ["../../../blobs", "../../blobs/deeper", "../../../models--other--name/blobs"])
def test_a_snapshot_that_links_elsewhere_is_refused(saved, registry, tmp_path, target):
    with pytest.raises(ArtifactError, match="leads out of the folder"):
        Adapter.load(cached(saved, tmp_path / "hub", target=target), registry=registry)


def test_a_folder_that_is_itself_behind_a_link_is_read(saved, adapter, registry, tmp_path):
    (tmp_path / "link").symlink_to(saved)
    assert Adapter.load(tmp_path / "link", registry=registry) == adapter
