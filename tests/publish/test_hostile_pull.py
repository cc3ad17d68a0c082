"""A stranger's repository is refused with the reason, whatever it holds, and nothing is written outside the store."""

import pytest
import torch

from adapterkit import AdapterkitError, ArtifactError, Base, RemoteError, pull
from adapterkit.testing import tiny_llama
from adapterkit.testing.hub import Fault
from tests.artifact.adapter_folders import make_adapter
from tests.artifact.test_hostile_files import HOSTILE
from tests.publish.conftest import started

LOCAL = {"weights behind a link", "a configuration behind a link", "a link to nothing", "a link to itself"}
LOCAL |= {"a link to a device", "a FIFO", "a folder for a file"}
"""What only a disk can hold."""
SLOW = {"300,000 empty tensors", "600,000 empty tensors", "a header of brackets"}


@pytest.fixture(scope="module")
def shared_hub(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, started(patch, xet=False) as hub:
        yield hub


@pytest.fixture
def victim():
    return Base(tiny_llama())


def tree(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[pytest.mark.slow] if one in SLOW else []) for one in sorted(set(HOSTILE) - LOCAL)]
)
def test_what_is_refused_in_a_folder_is_refused_from_the_hub(shared_hub, victim, store, tmp_path, name):
    stock = tmp_path / "stock"
    make_adapter(victim.model).save(stock)
    for left_out in ("adapterkit.json", "README.md"):
        (stock / left_out).unlink()
    HOSTILE[name][0](stock)
    repository = f"org/evil-{abs(hash(name))}"
    shared_hub.put(repository, {path.name: path.read_bytes() for path in stock.iterdir()})
    weights = {key: tensor.clone() for key, tensor in victim.model.state_dict().items()}
    before = tree(tmp_path)
    with pytest.raises((ArtifactError, RemoteError)):
        victim.load(f"hf://{repository}")
    assert all(torch.equal(weights[key], tensor) for key, tensor in victim.model.state_dict().items())
    assert victim.resident == ()
    assert {path for path in tree(tmp_path) - before if not path.startswith("store/")} == set()
    assert not list(store.folder.glob("downloads/*"))


def test_files_that_are_no_adapter_s_are_not_fetched(shared_hub, make, store, tmp_path):
    make().save(tmp_path / "cards")
    files = {path.name: path.read_bytes() for path in (tmp_path / "cards").iterdir()}
    others = {
        "../../evil.py": b"import os",
        "/etc/cron.d/evil": b"* * * * * root sh",
        "modeling_evil.py": b"import os",
        "adapter_model.bin": b"\x80\x04",
        "con.json": b"{}",
        "ADAPTER_MODEL.safetensors": b"\x00",
        "nested/adapter_model.safetensors": b"\x00",
    }
    shared_hub.put("org/messy", {**files, **others}, hostile=True)
    before = len(shared_hub.requests)
    assert store.load(pull("hf://org/messy", store=store)) == make()
    asked = {one.path.rpartition("/")[2] for one in shared_hub.requests[before:] if "/resolve/" in one.path}
    assert asked <= {"adapter_config.json", "adapter_model.safetensors", "adapterkit.json", "model.sig"}
    assert not [path for path in tree(tmp_path) if "evil" in path or path.endswith(".py")]


def test_a_card_with_scripts_does_not_arrive(shared_hub, make, store, tmp_path):
    make().save(tmp_path / "cards")
    files = {path.name: path.read_bytes() for path in (tmp_path / "cards").iterdir()}
    shared_hub.put("org/script", {**files, "README.md": b"---\n---\n<script>alert(1)</script>"})
    store.checkout(pull("hf://org/script", store=store), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "<script" not in card
    assert card == (tmp_path / "cards" / "README.md").read_text()  # it is written anew from the manifest


def test_a_file_that_is_too_large_is_not_fetched(shared_hub, make, store, tmp_path):
    make().save(tmp_path / "cards")
    files = {path.name: path.read_bytes() for path in (tmp_path / "cards").iterdir()}
    shared_hub.put("org/large", {**files, "adapterkit.json": b" " * (2 << 20)})
    before = len(shared_hub.requests)
    with pytest.raises(ArtifactError, match=r"adapterkit.json has 2,097,152 bytes; at most 1,048,576 are fetched"):
        pull("hf://org/large", store=store)
    assert not [one for one in shared_hub.requests[before:] if one.method == "GET" and "/resolve/" in one.path]


def test_a_redirect_to_another_host_is_not_followed(shared_hub, make, store, tmp_path):
    make().save(tmp_path / "cards")
    shared_hub.put("org/away", {path.name: path.read_bytes() for path in (tmp_path / "cards").iterdir()})
    shared_hub.faults.add(Fault("redirected", times=None))
    try:
        before = len(shared_hub.requests)
        with pytest.raises(RemoteError, match="sends to another host"):
            pull("hf://org/away", store=store)
        assert "elsewhere" not in {one.place for one in shared_hub.requests[before:]}
    finally:
        shared_hub.faults.clear()


@pytest.mark.parametrize(
    "name",
    ["../x", "/abs", "a\x00b", "A" * 200, "cards@1", "con", "nul.txt", "Cards", "ca\u200brds", "-x", ".hidden"],
)
def test_a_name_that_is_no_name_is_refused(shared_hub, make, store, tmp_path, name):
    make().save(tmp_path / "cards")
    shared_hub.put("org/fine", {path.name: path.read_bytes() for path in (tmp_path / "cards").iterdir()})
    before = tree(tmp_path)
    with pytest.raises((AdapterkitError, ValueError)):
        pull("hf://org/fine", name=name, store=store)
    assert {path for path in tree(tmp_path) - before if not path.startswith("store/")} == set()
