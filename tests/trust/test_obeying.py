"""Publishing, pulling, the store and the command line obey the policy."""

import json

import pytest

from adapterkit import ConfigError, TrustError
from adapterkit.cli import main
from adapterkit.publishing import publish, pull
from adapterkit.store import Store
from adapterkit.trust import Policy, sign
from tests.trust.keys import write_policy

UNCHECKED = {"unevaluated": True, "unlicensed": True, "base_model": "org/base"}


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTERKIT_STORE", str(tmp_path / "store"))
    return Store()


@pytest.fixture
def policy(tmp_path, monkeypatch, keys):
    def put(*rules, signers=("release",)):
        monkeypatch.setenv("ADAPTERKIT_TRUST", str(write_policy(tmp_path, *rules, signers=signers)))

    return put


@pytest.fixture
def url(tmp_path):
    return f"file://{tmp_path}/shared/cards"


def test_what_is_pulled_must_be_signed_and_stays_so_in_the_store(url, adapter, keys, store, policy):
    publish(adapter, url, tag="v1", **UNCHECKED)
    policy((url, ["release"]), ("local", ()))
    with pytest.raises(TrustError, match=rf"{url}@.* is not let in: it is not signed"):
        pull(f"{url}@v1", store=store)
    assert store.names() == []
    publish(adapter, url, tag="v2", key=keys["release"], **UNCHECKED)
    version = pull(f"{url}@v2", store=store)
    assert store.load(version) == adapter
    policy((url, ["other"]), ("local", ()), signers=("other",))
    with pytest.raises(TrustError, match="signed, but not by 'other'"):
        store.load(version)
    policy(("local", ()))
    with pytest.raises(TrustError, match="and not 'file://"):
        store.load(version)


def test_a_place_that_no_rule_names_is_not_even_asked(store, policy):
    policy(("local", ()))
    with pytest.raises(TrustError, match="and not 's3://no-such-bucket/cards'"):
        pull("s3://no-such-bucket/cards@v1", store=store)


def test_a_tag_is_let_in_by_the_rule_for_the_id_that_it_stands_for(url, adapter, adapters, store, policy):
    first = publish(adapter, url, tag="v1", **UNCHECKED)
    publish(adapters[1], url, tag="v2", **UNCHECKED)
    policy((f"{url}@{first.revision}", ()), ("local", ()))
    assert store.load(pull(f"{url}@v1", store=store)) == adapter
    with pytest.raises(TrustError):
        pull(f"{url}@v2", store=store)


def test_what_is_made_here_and_stored_is_local(adapter, keys, store, policy, folder):
    policy((f"{folder.parent}/*", ["release"]))
    made = store.add(adapter, "cards")
    with pytest.raises(TrustError, match="and not 'local'"):
        store.load(made)
    with pytest.raises(TrustError, match="it is not signed"):
        store.add(folder, "cards")
    sign(folder, keys["release"])
    policy((f"{folder.parent}/*", ["release"]), ("local", ["release"]))
    assert store.load(store.add(folder, "cards")) == adapter
    with pytest.raises(TrustError, match="it is not signed"):
        store.load(made)


def test_a_folder_that_was_put_into_the_store_stays_under_its_rule(folder, adapter, keys, store, policy):
    sign(folder, keys["release"])
    policy((f"{folder.parent}/*", ["release"]), ("local", ()))
    version = store.add(folder, "cards")
    assert version.origin == str(folder)
    assert store.add(folder, "cards") == version
    assert store.load(version) == adapter
    policy((f"{folder.parent}/*", ["other"]), ("local", ()), signers=("other",))
    with pytest.raises(TrustError, match="signed, but not by 'other'"):  # its key was taken back
        store.load(version)
    policy(("local", ()))
    with pytest.raises(TrustError, match=f"and not '{folder}'"):
        store.load(version)


def test_without_a_policy_a_folder_that_is_put_into_the_store_is_local(folder, adapter, store, policy):
    assert store.add(folder, "cards").origin == ""
    policy(("local", ()))
    assert store.load("cards") == adapter


def test_what_is_not_let_in_is_not_written_out_either(adapter, store, policy, tmp_path):
    """Or it could be loaded from a folder that another rule lets in."""
    store.add(adapter, "cards", origin="hf://evil/cards@abc")
    policy((f"{tmp_path}/out/**", ()), ("local", ()))
    out = tmp_path / "out"
    for write in (
        lambda: store.checkout("cards", out / "cards"),
        lambda: store.export(out / "all"),
        lambda: store.export(out / "all.tar", ["cards@1"]),
    ):
        with pytest.raises(TrustError, match=r"is not let in: .*and not 'hf://evil/cards@abc'"):
            write()
    assert not out.exists()
    policy(("hf://evil/*", ()))
    store.checkout("cards", out / "cards")
    store.export(out / "all")
    with pytest.raises(TrustError):
        store.import_(out / "all")


def test_a_link_that_appears_where_something_came_from_lets_nothing_in(adapter, store, policy, tmp_path):
    trusted, mallory = tmp_path / "trusted", tmp_path / "mallory"
    for folder in (trusted, mallory):
        publish(adapter, f"file://{folder}/cards", **UNCHECKED)
        other = Store(tmp_path / "other" / folder.name)
        other.add(adapter, "cards")
        other.export(folder / "export")
    pulled = pull(f"file://{mallory}/cards", store=store)
    ((_, imported),) = store.import_(mallory / "export").added.items()
    policy((f"file://{trusted}/*", ()), (f"{trusted}/*", ()))
    mallory.rename(tmp_path / "kept")
    mallory.symlink_to(trusted)
    for version in (pulled, imported):
        with pytest.raises(TrustError, match=f"and not '.*{mallory}/"):
            store.load(version)


def test_what_is_pulled_through_a_link_comes_from_where_it_led(adapter, adapters, store, policy, tmp_path, monkeypatch):
    """A link that is changed after the policy was asked leads nowhere else."""
    trusted, mallory, link = tmp_path / "trusted", tmp_path / "mallory", tmp_path / "link"
    publish(adapter, f"file://{trusted}/cards", **UNCHECKED)
    publish(adapters[1], f"file://{mallory}/cards", **UNCHECKED)
    link.symlink_to(trusted)
    policy((f"file://{trusted}/*", ()))
    check_place = Policy.check_place

    def swapping(self, url):
        check_place(self, url)
        link.unlink()
        link.symlink_to(mallory)

    monkeypatch.setattr(Policy, "check_place", swapping)
    version = pull(f"file://{link}/cards", store=store)
    assert version.origin.startswith(f"file://{trusted}/cards@")
    assert store.load(version) == adapter


def run(capsys, *arguments):
    code = main([str(one) for one in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_command_signs_and_verifies(folder, keys, capsys, tmp_path):
    assert run(capsys, "sign", folder, "--key", keys["release"]) == (0, f"{folder}/model.sig\n", "")
    code, out, err = run(capsys, "sign", folder, "--verify", "--key", tmp_path / "release.pub")
    assert (code, out, err) == (0, "", f"{folder} is what release.pub has signed\n")
    code, out, err = run(capsys, "sign", folder, "--verify", "--key", tmp_path / "other.pub")
    assert (code, out) == (1, "")
    assert "signed, but not by 'other.pub'" in err
    assert run(capsys, "sign", folder, "--key", tmp_path / "gone.pem")[0] == 2
    assert run(capsys, "sign", tmp_path / "gone", "--key", keys["release"])[0] == 1


def test_the_command_says_which_rule_lets_in_what(folder, adapter, keys, store, policy, capsys, tmp_path):
    code, out, _ = run(capsys, "trust", "check", folder)
    assert (code, out.split(":")[0]) == (0, "no trust policy is in force")
    policy(("hf://org/*", ["release"]), (f"{folder.parent}/*", ["release"]), ("local", ()))
    store.add(adapter, "cards")
    file = tmp_path / "trust.toml"
    assert run(capsys, "trust", "check", "cards@1") == (
        0,
        f"let in by the rule 'local' of {file}; no signature is needed\n",
        "",
    )
    said = f"let in by the rule 'hf://org/*' of {file}; a signature of release is needed\n"
    assert run(capsys, "trust", "check", "hf://org/cards") == (0, said, "")
    code, out, err = run(capsys, "trust", "check", folder)
    assert (code, out) == (1, "")
    assert f"folder '{folder}' is not let in: it is not signed" in err
    sign(folder, keys["release"])
    code, out, _ = run(capsys, "trust", "check", folder, "--json")
    assert code == 0
    assert json.loads(out) == {"policy": str(file), "rule": f"{folder.parent}/*", "signer": "release"}
    assert run(capsys, "trust", "check", "hf://evil/cards")[0] == 1


def test_a_broken_policy_is_a_misuse(folder, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("ADAPTERKIT_TRUST", str(tmp_path / "gone.toml"))
    code, _, err = run(capsys, "trust", "check", folder)
    assert code == 2
    assert "gone.toml" in err
    with pytest.raises(ConfigError):
        pull("hf://org/cards")
