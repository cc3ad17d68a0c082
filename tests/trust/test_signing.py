"""What is signed is all that is read, and a signature holds for just that."""

import base64
import json
import shutil
import subprocess
import sys

import pytest

from adapterkit import Adapter, ArtifactError, Base, ConfigError, TrustError
from adapterkit.testing import tiny_llama
from adapterkit.trust import sign, verify
from tests.trust.keys import make_keys

FILES = ("adapter_config.json", "adapter_model.safetensors", "adapterkit.json")


def release(tmp_path):
    return {"release": tmp_path / "release.pub"}


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_a_signature_holds_for_what_was_signed(signed, tmp_path):
    assert verify(signed, release(tmp_path)) == "release"
    assert verify(signed, {"other": tmp_path / "other.pub"} | release(tmp_path)) == "release"
    assert (signed / "model.sig").stat().st_size < 10_000


def test_a_copy_under_another_name_is_signed_too(signed, tmp_path):
    shutil.copytree(signed, tmp_path / "copy")
    assert verify(tmp_path / "copy", release(tmp_path)) == "release"


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_changed_is_named(signed, tmp_path, name):
    flip(signed / name)
    with pytest.raises(TrustError, match=rf"the signature of 'release' does not hold: .*{name}"):
        verify(signed, release(tmp_path))


@pytest.mark.parametrize("name", FILES[:2])
def test_a_file_that_is_gone_is_named(signed, tmp_path, name):
    (signed / name).unlink()
    with pytest.raises(TrustError, match=f"{name}, which was signed, is not there"):
        verify(signed, release(tmp_path))


def test_a_file_that_was_added_and_would_be_read_is_named(tmp_path, keys):
    """An adapter without PEFT's configuration gets one after it was signed."""
    from tests.support import make_adapter

    folder = make_adapter(Base(tiny_llama()), method="full", target_modules=["q_proj"]).save(tmp_path / "full")
    assert not (folder / FILES[0]).exists()
    sign(folder, keys["release"])
    (folder / FILES[0]).write_text("{}")
    with pytest.raises(TrustError, match=r"adapter_config.json is not among what was signed"):
        verify(folder, release(tmp_path))


def test_the_card_may_be_edited_and_what_is_never_read_may_lie_there(signed, tmp_path):
    (signed / "README.md").write_text("# Mine\n")
    (signed / "notes.txt").write_text("x")
    (signed / "more").mkdir()
    (signed / "more" / "adapter_config.json").write_text("{}")
    assert verify(signed, release(tmp_path)) == "release"


def test_a_folder_that_is_saved_again_has_lost_its_signature(signed, adapters, tmp_path):
    adapters[1].save(signed)
    with pytest.raises(TrustError, match=r"it is not signed: there is no model.sig, and 'release' must have signed it"):
        verify(signed, release(tmp_path))


def test_a_signature_of_another_adapter_is_none(signed, adapters, keys, tmp_path):
    other = adapters[1].save(tmp_path / "runs" / "tone")
    sign(other, keys["release"])
    shutil.copy(other / "model.sig", signed / "model.sig")
    with pytest.raises(TrustError, match="does not hold"):
        verify(signed, release(tmp_path))


def test_a_signature_with_another_key_is_none(signed, tmp_path):
    with pytest.raises(TrustError, match="signed, but not by 'other': with the key"):
        verify(signed, {"other": tmp_path / "other.pub"})


def edited(signature, change):
    """The signature's file with its bundle and its statement changed."""
    bundle = json.loads(signature.read_text())
    envelope = bundle["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    before = json.dumps(statement)
    change(bundle, statement)
    if json.dumps(statement) != before:
        envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    signature.write_text(json.dumps(bundle))


def claim_release(bundle, tmp_path):
    """Let a bundle say that it was made with release's key."""
    import hashlib

    bundle["verificationMaterial"]["publicKey"]["hint"] = hashlib.sha256(
        (tmp_path / "release.pub").read_bytes()
    ).hexdigest()


def test_a_bundle_that_claims_another_s_key_is_not_believed(folder, keys, tmp_path):
    sign(folder, keys["other"])
    edited(folder / "model.sig", lambda bundle, _: claim_release(bundle, tmp_path))
    with pytest.raises(TrustError, match="the signature of 'release' does not hold"):
        verify(folder, release(tmp_path))


def test_a_statement_that_was_changed_is_not_believed(signed, tmp_path):
    flip(signed / FILES[1])
    import hashlib

    digest = hashlib.sha256((signed / FILES[1]).read_bytes()).hexdigest()

    def change(_, statement):
        resource = next(one for one in statement["predicate"]["resources"] if one["name"] == FILES[1])
        resource["digest"] = digest

    edited(signed / "model.sig", change)
    with pytest.raises(TrustError, match="does not hold"):
        verify(signed, release(tmp_path))


def test_a_statement_that_leaves_a_file_out_proves_nothing_of_it(folder, keys, tmp_path):
    """model-signing itself leaves out what a signed statement says that it leaves out: here that would be the weights."""
    command = [sys.executable, "-m", "model_signing", "sign", "key", str(folder), "--private_key", str(keys["release"])]
    left_out = [word for name in (FILES[1], "README.md") for word in ("--ignore-paths", str(folder / name))]
    run(*command, "--signature", str(folder / "model.sig"), *left_out)
    flip(folder / FILES[1])
    run(
        *command[:3],
        "verify",
        "key",
        str(folder),
        "--public_key",
        str(tmp_path / "release.pub"),
        "--signature",
        str(folder / "model.sig"),
    )
    with pytest.raises(TrustError, match=f"{FILES[1]} is not among what was signed"):
        verify(folder, release(tmp_path))


def test_a_statement_of_other_digests_than_sha256_of_whole_files_is_refused(folder, keys, tmp_path):
    from model_signing import hashing, signing

    config = hashing.Config().use_shard_serialization().set_ignored_paths(paths=["README.md", "model.sig"])
    signing.Config().use_elliptic_key_signer(private_key=keys["release"]).set_hashing_config(config).sign(
        folder, folder / "model.sig"
    )
    with pytest.raises(TrustError):
        verify(folder, release(tmp_path))


GARBAGE = {
    "nothing": b"",
    "text": b"hello",
    "bytes": bytes(range(256)),
    "list": b"[]",
    "empty": b"{}",
    "null": b'{"dsseEnvelope": null, "verificationMaterial": null}',
    "deep": b'{"a":' * 50_000,
    "twice": b'{"dsseEnvelope": {}, "dsseEnvelope": {}}',
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_a_signature_that_is_none_is_refused(signed, tmp_path, data):
    (signed / "model.sig").write_bytes(data)
    with pytest.raises(TrustError, match=r"model.sig"):
        verify(signed, release(tmp_path))


CHANGES = {
    "no hint": lambda bundle, _: bundle["verificationMaterial"]["publicKey"].pop("hint"),
    "null hint": lambda bundle, _: bundle["verificationMaterial"]["publicKey"].update(hint=None),
    "no signatures": lambda bundle, _: bundle["dsseEnvelope"].update(signatures=[]),
    "two signatures": lambda bundle, _: bundle["dsseEnvelope"].update(
        signatures=bundle["dsseEnvelope"]["signatures"] * 2
    ),
    "no payload": lambda bundle, _: bundle["dsseEnvelope"].update(payload=""),
    "another kind": lambda bundle, _: bundle.update(mediaType="x"),
    "another payload": lambda bundle, _: bundle["dsseEnvelope"].update(payloadType="text/plain"),
    "certificate": lambda bundle, _: bundle.update(verificationMaterial={"certificate": {"rawBytes": "AA=="}}),
    "no predicate": lambda _, statement: statement.pop("predicate"),
    "resources": lambda _, statement: statement["predicate"].update(resources=3),
    "names": lambda _, statement: statement["predicate"]["resources"][0].update(name=3),
    "empty signature": lambda bundle, _: bundle["dsseEnvelope"]["signatures"][0].update(sig=""),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_bundle_of_another_make_is_refused(signed, tmp_path, change):
    edited(signed / "model.sig", change)
    with pytest.raises(TrustError):
        verify(signed, release(tmp_path))


def test_a_huge_signature_is_not_read(signed, tmp_path):
    with (signed / "model.sig").open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(TrustError, match="1,099,511,627,776 bytes"):
        verify(signed, release(tmp_path))


def test_a_signature_that_is_a_link_out_of_the_folder_is_refused(signed, tmp_path):
    shutil.move(signed / "model.sig", tmp_path / "model.sig")
    (signed / "model.sig").symlink_to(tmp_path / "model.sig")
    with pytest.raises(TrustError, match="leads out of the folder"):
        verify(signed, release(tmp_path))


# -- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("curve", ["P-384", "P-521"])
def test_keys_of_other_sizes_sign_too(folder, tmp_path, curve):
    private, public = make_keys(tmp_path, "big", curve=curve)
    sign(folder, private)
    assert verify(folder, {"big": public}) == "big"


@pytest.mark.parametrize("curve", ["RSA", "secp256k1"])
def test_keys_of_another_kind_are_refused_by_name(folder, signed, tmp_path, curve):
    private, public = make_keys(tmp_path, "odd", curve=curve)
    with pytest.raises(ConfigError, match=r"odd.pem' is no private key of P-256, P-384 or P-521"):
        sign(folder, private)
    with pytest.raises(ConfigError, match=r"odd: .* is no public key of P-256, P-384 or P-521"):
        verify(signed, {"odd": public})


def test_an_encrypted_key_takes_its_passphrase_from_a_variable(folder, tmp_path, monkeypatch):
    private, public = make_keys(tmp_path, "locked", passphrase="canary words")
    with pytest.raises(ConfigError, match="is encrypted: set ADAPTERKIT_KEY_PASSPHRASE"):
        sign(folder, private)
    monkeypatch.setenv("ADAPTERKIT_KEY_PASSPHRASE", "canary other")
    with pytest.raises(ConfigError, match="passphrase is wrong") as caught:
        sign(folder, private)
    assert "canary" not in str(caught.value)
    assert not (folder / "model.sig").exists()
    monkeypatch.setenv("ADAPTERKIT_KEY_PASSPHRASE", "canary words")
    sign(folder, private)
    assert verify(folder, {"locked": public}) == "locked"
    with pytest.raises(ConfigError, match="is not encrypted, and a passphrase is given"):
        sign(folder, make_keys(tmp_path, "open")[0], passphrase="canary words")


@pytest.mark.parametrize("text", ["", "canary", "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n"])
def test_a_key_that_is_none_is_refused_and_not_repeated(folder, tmp_path, text):
    (tmp_path / "key.pem").write_text(text)
    with pytest.raises(ConfigError, match="is no private key") as caught:
        sign(folder, tmp_path / "key.pem")
    assert "canary" not in str(caught.value)
    with pytest.raises(ConfigError, match="there is no file"):
        sign(folder, tmp_path / "gone.pem")


# -- what can be signed -----------------------------------------------------------------------------------------------


def test_what_cannot_be_loaded_is_not_signed(folder, keys):
    flip(folder / FILES[1])
    with pytest.raises(ArtifactError, match="was changed after it was saved"):
        sign(folder, keys["release"])
    assert not (folder / "model.sig").exists()


def test_an_adapter_s_folder_with_something_else_in_it_is_not_signed(folder, keys):
    (folder / "notes.txt").write_text("x")
    with pytest.raises(ArtifactError, match=r"also holds 'notes.txt'"):
        sign(folder, keys["release"])


def test_a_folder_of_peft_alone_is_not_signed(folder, keys):
    (folder / FILES[2]).unlink()
    with pytest.raises(ArtifactError, match=r"Adapter.load"):
        sign(folder, keys["release"])


def test_an_empty_folder_and_none_at_all_are_not_signed(tmp_path, keys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="neither an adapter nor a model"):
        sign(tmp_path / "empty", keys["release"])
    with pytest.raises(ArtifactError, match="no such folder"):
        sign(tmp_path / "gone", keys["release"])


def test_signing_again_replaces_the_signature(signed, keys, tmp_path):
    sign(signed, keys["other"])
    assert verify(signed, {"other": tmp_path / "other.pub"}) == "other"
    with pytest.raises(TrustError):
        verify(signed, release(tmp_path))
    assert [path.name for path in signed.parent.iterdir()] == ["cards"]


def test_a_signed_adapter_loads_as_before(signed, adapter):
    assert Adapter.load(signed) == adapter


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    tiny_llama().save_pretrained(folder)
    (folder / "README.md").write_text("# A model\n")
    (folder / "nested").mkdir()
    (folder / "nested" / "more.json").write_text("{}")
    return folder


def test_a_whole_model_is_signed_file_by_file(model, keys, tmp_path):
    sign(model, keys["release"])
    (model / "README.md").write_text("# Edited\n")
    (model / ".gitattributes").write_text("x")
    assert verify(model, release(tmp_path)) == "release"
    for name in ("config.json", "model.safetensors", "nested/more.json"):
        before = (model / name).read_bytes()
        flip(model / name)
        with pytest.raises(TrustError, match=name):
            verify(model, release(tmp_path))
        (model / name).write_bytes(before)
    (model / "nested" / "evil.py").write_text("")
    with pytest.raises(TrustError, match=r"nested/evil.py is not among what was signed"):
        verify(model, release(tmp_path))


def test_links_out_of_a_model_are_refused(model, keys, tmp_path):
    (tmp_path / "secret.txt").write_text("x")
    (model / "secret.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(ArtifactError, match="leads out of the folder"):
        sign(model, keys["release"])
    (model / "secret.txt").unlink()
    (model / "linked").symlink_to(tmp_path)
    with pytest.raises(ArtifactError, match="linked is a link to a folder"):
        sign(model, keys["release"])


# -- others -----------------------------------------------------------------------------------------------------------


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_stock_command_verifies_what_is_signed_here(signed, model, keys, tmp_path):
    sign(model, keys["release"])
    for folder in (signed, model):
        (folder / "README.md").write_text("# Edited\n")
        signature = ["--signature", str(folder / "model.sig"), "--public_key", str(tmp_path / "release.pub")]
        said = run(sys.executable, "-m", "model_signing", "verify", "key", str(folder), *signature)
        assert "succeeded" in said


def test_what_the_stock_command_signs_is_verified_here(folder, keys, tmp_path):
    made = ["--signature", str(folder / "model.sig"), "--private_key", str(keys["release"])]
    left_out = ["--ignore-paths", str(folder / "README.md")]
    run(sys.executable, "-m", "model_signing", "sign", "key", str(folder), *made, *left_out)
    assert verify(folder, release(tmp_path)) == "release"


def test_a_signature_of_the_card_too_is_refused_with_what_to_do(folder, keys, tmp_path):
    """The card is written anew where an adapter is stored or published: such a signature would hold in this one folder."""
    made = ["--signature", str(folder / "model.sig"), "--private_key", str(keys["release"])]
    run(sys.executable, "-m", "model_signing", "sign", "key", str(folder), *made)
    with pytest.raises(TrustError, match=r"README.md was signed too, which people may edit: sign without it"):
        verify(folder, release(tmp_path))


@pytest.mark.parametrize("missing", ["model_signing", "OpenSSL"])
def test_without_the_extra_it_is_named(signed, keys, tmp_path, monkeypatch, missing):
    for name in list(sys.modules):
        if name.partition(".")[0] in ("model_signing", missing):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    for call in (lambda: sign(signed, keys["release"]), lambda: verify(signed, release(tmp_path))):
        with pytest.raises(TrustError, match=r'pip install "adapterkit\[sign\]"'):
            call()
