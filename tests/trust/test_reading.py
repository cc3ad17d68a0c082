"""Loading obeys the policy: what was verified is what is loaded, and nothing gets around it."""

import contextlib
import io
import os
import shutil

import pytest

from adapterkit import Adapter, ArtifactError, Base, ConfigError, TrustError
from adapterkit.artifact.files import Folder, find_folder
from adapterkit.registry import default_registry
from adapterkit.testing import tiny_llama
from adapterkit.trust import Policy, check_trusted, read_trusted, sign
from adapterkit.trust import reading as reading_module
from tests.trust.keys import write_policy

COMMIT = "4f0c2a81e0f24b0b9d3b6a3fdfd0d7e6a1b2c3d4"


@pytest.fixture
def policy(tmp_path, monkeypatch, keys):
    """Puts rules in force, as pairs of a source and names of signers."""

    def put(*rules, signers=("release",)):
        path = write_policy(tmp_path, *rules, signers=signers)
        monkeypatch.setenv("ADAPTERKIT_TRUST", str(path))
        return path

    return put


@pytest.fixture
def runs(folder):
    return f"{folder.parent}/*"


def read(source, origin=""):
    return Adapter(*read_trusted(source, default_registry(), origin=origin))


def test_without_a_policy_everything_loads_that_passes_the_loader(folder, adapter, monkeypatch, tmp_path):
    monkeypatch.delenv("ADAPTERKIT_TRUST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    assert Adapter.load(folder) == adapter


def test_a_policy_that_cannot_be_read_lets_nothing_in(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("ADAPTERKIT_TRUST", str(tmp_path / "gone.toml"))
    with pytest.raises(ConfigError, match="the trust policy cannot be read"):
        Adapter.load(folder)


def test_a_source_that_is_named_loads_and_another_is_refused(policy, folder, adapter, runs):
    policy((runs, ()))
    assert Adapter.load(folder) == adapter
    policy(("/elsewhere/*", ()))
    with pytest.raises(
        TrustError, match=rf"adapter folder '{folder}' is not let in: the trust policy .* names '/elsewhere/\*'"
    ):
        Adapter.load(folder)


def test_a_trust_error_is_an_artifact_error_and_a_permission_error(policy, folder):
    policy()
    for kind in (ArtifactError, PermissionError):
        with pytest.raises(kind):
            Adapter.load(folder)


def test_what_needs_a_signature_loads_when_it_is_signed(policy, folder, adapter, keys, runs):
    policy((runs, ["release"]))
    with pytest.raises(TrustError, match=r"is not let in: it is not signed: there is no model.sig"):
        Adapter.load(folder)
    sign(folder, keys["release"])
    assert Adapter.load(folder) == adapter


def test_any_one_of_several_signers_will_do(policy, folder, adapter, keys, runs):
    policy((runs, ["release", "other"]), signers=("release", "other"))
    sign(folder, keys["other"])
    assert Adapter.load(folder) == adapter
    policy((runs, ["release"]), signers=("release", "other"))
    with pytest.raises(TrustError, match="signed, but not by 'release'"):
        Adapter.load(folder)


def test_a_key_that_is_taken_from_the_policy_is_revoked_at_once(policy, signed, adapter, runs):
    policy((runs, ["release", "other"]), signers=("release", "other"))
    assert Adapter.load(signed) == adapter
    policy((runs, ["other"]), signers=("other",))
    with pytest.raises(TrustError, match="signed, but not by 'other'"):
        Adapter.load(signed)


def test_a_url_s_rule_is_about_where_it_came_from_and_not_where_it_lies(policy, signed, adapter):
    policy(("hf://org/*", ["release"]))
    assert read(signed, f"hf://org/cards@{COMMIT}") == adapter
    with pytest.raises(TrustError, match="and not 'hf://evil/cards@"):
        read(signed, f"hf://evil/cards@{COMMIT}")
    with pytest.raises(TrustError):
        read(signed)


def test_a_rule_may_name_the_one_revision_that_was_looked_at(policy, folder, adapter):
    policy((f"hf://org/cards@{COMMIT}", ()))
    assert read(folder, f"hf://org/cards@{COMMIT}") == adapter
    with pytest.raises(TrustError):
        read(folder, "hf://org/cards@" + "0" * 40)


class Held:
    """Files that lie nowhere in particular, as those of the store do."""

    def __init__(self, folder):
        self.folder = Folder(find_folder(folder))

    def has(self, name):
        return self.folder.has(name)

    def open(self, name):
        return self.folder.open(name)

    def __str__(self):
        return "version cards@3"


def test_files_elsewhere_are_local_unless_it_is_said_where_they_came_from(policy, signed, adapter):
    policy(("local", ()))
    assert read(Held(signed)) == adapter
    with pytest.raises(TrustError, match=r"version cards@3 is not let in: .*and not 'hf://org/cards@abc'"):
        read(Held(signed), "hf://org/cards@abc")
    policy(("local", ["release"]))
    assert read(Held(signed)) == adapter
    (signed / "model.sig").unlink()
    with pytest.raises(TrustError, match="version cards@3 is not let in: it is not signed"):
        read(Held(signed))


def test_what_the_loader_refuses_is_refused_by_its_own_name_though_a_copy_is_read(policy, folder, keys, runs):
    (folder / "model.sig").write_text("{}")
    weights = folder / "adapter_model.safetensors"
    policy((runs, ["release"]))
    weights.write_bytes(b"")
    with pytest.raises(ArtifactError, match=f"{folder}") as caught:
        Adapter.load(folder)
    assert "adapterkit-verify" not in str(caught.value)


class Swapping(Held):
    """Files of which each is another one from the second time on that it is opened."""

    def __init__(self, first, then):
        super().__init__(first)
        self.then = Folder(find_folder(then))
        self.opened = set()

    def open(self, name):
        again = name in self.opened
        self.opened.add(name)
        return (self.then if again else self.folder).open(name)


def test_what_was_verified_is_what_is_loaded(policy, signed, adapters, tmp_path):
    """Whoever swaps the files between the look at the signature and the loading has come too late."""
    evil = adapters[1].save(tmp_path / "evil")
    policy(("local", ["release"]))
    assert read(Swapping(signed, evil)) == adapters[0]
    with pytest.raises(TrustError):
        read(Swapping(evil, signed))


def test_a_folder_that_is_swapped_while_it_is_verified_is_refused_or_what_was_signed(
    policy, signed, adapters, runs, tmp_path, monkeypatch
):
    evil = adapters[1].save(tmp_path / "evil")
    policy((runs, ["release"]))
    verify = reading_module.verify

    def swapping(folder, signers):
        name = verify(folder, signers)
        shutil.rmtree(signed)
        shutil.copytree(evil, signed)
        return name

    monkeypatch.setattr(reading_module, "verify", swapping)
    assert Adapter.load(signed) == adapters[0]


def test_a_folder_that_becomes_a_link_after_it_was_named_leads_nowhere(
    policy, folder, adapters, runs, tmp_path, monkeypatch
):
    evil = adapters[1].save(tmp_path / "evil")
    policy((runs, ()))
    read_artifact = reading_module.read_artifact

    def swapping(source, registry):
        shutil.rmtree(folder)
        folder.symlink_to(evil)
        return read_artifact(source, registry)

    monkeypatch.setattr(reading_module, "read_artifact", swapping)
    with pytest.raises(ArtifactError, match="leads out of the folder"):
        Adapter.load(folder)


def test_a_link_that_is_changed_between_the_finding_and_the_rule_lets_nothing_in(
    policy, folder, adapters, runs, tmp_path, monkeypatch
):
    """The rule must be asked about the folder that is read: not about where a link in its place leads by then."""
    evil = adapters[1].save(tmp_path / "mallory" / "cards")
    policy((runs, ()))
    check = Policy.check

    def swapping(self, *arguments, **options):
        evil.rename(tmp_path / "mallory" / "kept")
        evil.symlink_to(folder)
        try:
            return check(self, *arguments, **options)
        finally:
            evil.unlink()
            (tmp_path / "mallory" / "kept").rename(evil)

    monkeypatch.setattr(Policy, "check", swapping)
    with pytest.raises(TrustError, match=f"and not '{evil}'"):
        Adapter.load(evil)
    with pytest.raises(TrustError, match=f"and not '{evil}'"):
        check_trusted(evil)


def test_the_copy_is_private_and_gone_afterwards(policy, signed, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    verify = reading_module.verify
    seen = []

    def looking(folder, signers):
        seen.append((folder.stat().st_mode & 0o777, sorted(path.name for path in folder.iterdir()), folder.parent))
        return verify(folder, signers)

    monkeypatch.setattr(reading_module, "verify", looking)
    policy((runs, ["release"]))
    Adapter.load(signed)
    names = ["adapter_config.json", "adapter_model.safetensors", "adapterkit.json", "model.sig"]
    assert seen == [(0o700, names, tmp_path / "temporary")]
    (signed / "model.sig").unlink()
    with pytest.raises(TrustError):
        Adapter.load(signed)
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("name", ["adapterkit.json", "adapter_config.json", "model.sig", "adapter_model.safetensors"])
def test_a_huge_file_is_not_copied(policy, signed, runs, name):
    os.truncate(signed / name, 1 << 40)
    policy((runs, ["release"]))
    with pytest.raises(ArtifactError, match=rf"{name} has 1,099,511,627,776 bytes; at most"):
        Adapter.load(signed)


def test_a_file_that_grows_while_it_is_copied_fills_no_disk(policy, signed, tmp_path):
    read_of = []

    class Endless(io.RawIOBase):
        def read(self, size=-1):
            read_of.append(size)
            return b"x" * size

    class Growing(Held):
        @contextlib.contextmanager
        def open(self, name):
            with super().open(name) as (stream, size):
                yield (Endless() if name == "adapterkit.json" else stream), size

    policy(("local", ["release"]))
    with pytest.raises(TrustError, match="does not hold"):
        read(Growing(signed))
    assert sum(read_of) == (signed / "adapterkit.json").stat().st_size


def test_what_is_made_in_this_process_is_not_asked(policy, adapter, tmp_path):
    policy()
    base = Base(tiny_llama())
    with base.using(base.load(adapter)):
        pass
    adapter.save(tmp_path / "saved")


def test_a_base_obeys_too(policy, folder, runs):
    base = Base(tiny_llama())
    policy(("/elsewhere/*", ()))
    with pytest.raises(TrustError):
        base.load(folder)
    policy((runs, ()))
    base.load(folder)


def test_a_policy_that_needs_signatures_refuses_where_they_cannot_be_verified(policy, signed, runs, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "model_signing", None)
    policy((runs, ["release"]))
    with pytest.raises(TrustError, match=r'is not let in: .*pip install "adapterkit\[sign\]"'):
        Adapter.load(signed)


def test_a_whole_model_obeys_too(policy, keys, tmp_path, monkeypatch):
    folder = tmp_path / "models" / "tiny"
    tiny_llama().save_pretrained(folder)
    policy(("hf://org/*", ["release"]))
    with pytest.raises(TrustError, match=f"folder '{folder}' is not let in: it is not signed"):
        check_trusted(folder, origin=f"hf://org/tiny@{COMMIT}")
    with pytest.raises(TrustError, match="and not '/"):
        check_trusted(folder)
    sign(folder, keys["release"])
    admitted = check_trusted(folder, origin=f"hf://org/tiny@{COMMIT}")
    assert (admitted.rule, admitted.signer) == ("hf://org/*", "release")
    monkeypatch.delenv("ADAPTERKIT_TRUST")
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    assert check_trusted(folder) is None
