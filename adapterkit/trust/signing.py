"""Signatures of OpenSSF's model-signing, made and verified with keys and without a network.

A signature is a Sigstore bundle around an in-toto statement of every signed file's sha256. Here it covers all that is ever read
of an adapter: the card, which people edit, is left out.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterkit.artifact.files import find_folder, locate, read_bytes
from adapterkit.artifact.layout import CARD, MANIFEST, OURS, PEFT_CONFIG, SIGNATURE
from adapterkit.artifact.loader import read_artifact
from adapterkit.artifact.strict_json import parse_object
from adapterkit.errors import ArtifactError, ConfigError, TrustError
from adapterkit.registry import default_registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adapterkit.registry import Registry

__all__ = ["MOST_SIGNATURE_BYTES", "PASSPHRASE", "sign", "verify"]

PASSPHRASE = "ADAPTERKIT_KEY_PASSPHRASE"  # noqa: S105 - the name of a variable
"""The environment variable with the passphrase of a private key."""
MOST_SIGNATURE_BYTES = 1 << 20
"""One of an adapter has about 2 kB; each file of a model adds 200 bytes."""
MOST_KEY_BYTES = 1 << 16
MODEL = "config.json"
"""What every model's folder holds."""
UNSIGNED = (CARD, SIGNATURE)
GIT = (".git", ".gitattributes", ".github", ".gitignore")
"""What git and the Hub keep beside a model; model-signing leaves the same out."""


def sign(
    folder: str | os.PathLike[str],
    key: str | os.PathLike[str],
    *,
    passphrase: str | None = None,
    registry: Registry | None = None,
) -> Path:
    """Write ``model.sig`` beside the files of an adapter, or of a whole model; one that is there is replaced.

    Args:
        folder: What to sign. An adapter that cannot be loaded is not signed.
        key: The private key: PEM, of an elliptic curve (P-256, P-384 or P-521).
        passphrase: What the key is encrypted with; that of ``$ADAPTERKIT_KEY_PASSPHRASE`` without it.
        registry: Where an adapter's method is looked up.

    Returns:
        The signature's path.

    Raises:
        ArtifactError: There is nothing that can be signed, or the signature cannot be written.
        ConfigError: The key cannot be used.
        TrustError: model-signing is not installed.
    """
    library = _library()
    try:
        path = find_folder(folder)
        names = _covered(path)
        if _is_adapter(path):
            _check_adapter(path, registry or default_registry())
    except ArtifactError as error:
        raise ArtifactError(f"{os.fspath(folder)!r} is not signed: {error}") from error
    signer = _signer(library, Path(key), os.environ.get(PASSPHRASE) if passphrase is None else passphrase)
    target = path / SIGNATURE
    staging = path.with_name(f".adapterkit-{secrets.token_hex(8)}.sig")  # beside the folder: in it, it would be signed
    try:
        signer.set_hashing_config(_hashing(library, path, names)).sign(path, staging)
        staging.replace(target)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{os.fspath(folder)!r} is not signed: {error}") from error
    finally:
        staging.unlink(missing_ok=True)
    return target


def verify(folder: str | os.PathLike[str], signers: Mapping[str, str | os.PathLike[str]]) -> str:
    """Say which of several signers has signed all that is read of an adapter, or all of a model, as it is now.

    Args:
        folder: The folder; files that are no adapter's are passed over in an adapter's.
        signers: Files of public keys, by the name of whom each belongs to.

    Returns:
        The signer's name.

    Raises:
        TrustError: Nobody of these has, or a file is not what was signed.
        ArtifactError: There is nothing that can be verified.
    """
    library = _library()
    path = find_folder(folder)
    names = _covered(path)
    if not os.path.lexists(path / SIGNATURE):
        raise TrustError(f"it is not signed: there is no {SIGNATURE}, and {_either(signers)} must have signed it")
    try:
        bundle = parse_object(read_bytes(path, SIGNATURE, MOST_SIGNATURE_BYTES), SIGNATURE)
        hint, signed = _claims(bundle)
    except ArtifactError as error:
        raise TrustError(str(error)) from None
    # a statement says itself which files it leaves out, and model-signing goes by that
    if signed != names:
        raise TrustError(f"its signature is not about these files: {_difference(signed, names)}")
    name = next((name for name, key in signers.items() if _fingerprint(library, Path(key), name) == hint), None)
    if name is None:
        raise TrustError(f"it is signed, but not by {_either(signers)}: with the key {hint:.16}…")
    verifier = library.verifying.Config().use_elliptic_key_verifier(public_key=signers[name])
    try:
        verifier.set_hashing_config(_hashing(library, path, names)).verify(path, path / SIGNATURE)
    except Exception as error:  # whatever the library's parts raise of what a stranger has written
        raise TrustError(f"the signature of {name!r} does not hold: {_reason(error)}") from error
    return name


def _library() -> Any:
    try:
        import model_signing
        import model_signing.signing
        import model_signing.verifying
    except ImportError as error:
        raise TrustError(
            f'signatures need model-signing and pyOpenSSL ({error}): pip install "adapterkit[sign]"'
        ) from None
    return model_signing


def _check_adapter(folder: Path, registry: Registry) -> None:
    read_artifact(folder, registry)
    if not os.path.lexists(folder / MANIFEST):
        raise ArtifactError(
            f"it has no {MANIFEST}, and gets one wherever it is kept: sign what Adapter.load(…).save(…) writes"
        )
    if extra := sorted({path.name for path in folder.iterdir()} - set(OURS)):
        raise ArtifactError(f"it also holds {extra[0]!r}, which is no adapter's: move it away")


def _is_adapter(folder: Path) -> bool:
    return any(os.path.lexists(folder / name) for name in (MANIFEST, PEFT_CONFIG))


def _covered(folder: Path) -> set[str]:
    """The files that a signature must be about: an adapter's own, or all of a model's.

    Raises:
        ArtifactError: It holds neither, or a link that leads out.
    """
    if _is_adapter(folder):
        names = {name for name in OURS if os.path.lexists(folder / name)} - set(UNSIGNED)
    elif os.path.lexists(folder / MODEL):
        names = _files(folder)
    else:
        raise ArtifactError(
            f"it holds neither an adapter nor a model: there is no {MANIFEST}, {PEFT_CONFIG} or {MODEL}"
        )
    for name in names:
        if not locate(folder, name).is_file():
            raise ArtifactError(f"{name} is not a regular file")
    return names


def _files(folder: Path) -> set[str]:
    names: set[str] = set()
    for parent, folders, files in os.walk(folder):
        here = Path(parent)
        linked = next((name for name in folders if (here / name).is_symlink()), None)
        if linked is not None:
            raise ArtifactError(f"{linked} is a link to a folder")
        if here == folder:
            folders[:] = [name for name in folders if name not in GIT]
        names.update((here / name).relative_to(folder).as_posix() for name in files)
    return names - {*UNSIGNED, *GIT}


def _hashing(library: Any, folder: Path, names: set[str]) -> Any:
    """Sha256 of whole files; what is not covered is left out."""
    tops = {name.partition("/")[0] for name in names}
    left_out = sorted({*(path.name for path in folder.iterdir()), *UNSIGNED} - tops)
    config = library.hashing.Config().use_file_serialization(hashing_algorithm="sha256", allow_symlinks=True)
    return config.set_ignored_paths(paths=left_out, ignore_git_paths=True).set_allow_symlinks(True)


def _claims(bundle: Mapping[str, Any]) -> tuple[str, set[str]]:
    """Which key a bundle says that it was made with, by its fingerprint, and which files it is about.

    Raises:
        ArtifactError: It is no bundle of a statement by model-signing.
    """
    try:
        envelope = bundle["dsseEnvelope"]
        hint = bundle["verificationMaterial"]["publicKey"]["hint"]
        (_,) = envelope["signatures"]
        statement = parse_object(base64.b64decode(envelope["payload"], validate=True), f"the statement in {SIGNATURE}")
        names = [resource["name"] for resource in statement["predicate"]["resources"]]
    except ArtifactError:
        raise
    except (KeyError, TypeError, ValueError):
        raise ArtifactError(f"{SIGNATURE} is no signature that model-signing has made with a key") from None
    if not isinstance(hint, str) or not all(isinstance(name, str) for name in names):
        raise ArtifactError(f"{SIGNATURE} is no signature that model-signing has made with a key")
    return hint, set(names)


def _difference(signed: set[str], names: set[str]) -> str:
    missing, gone = sorted(names - signed), sorted(signed - names)
    if missing:
        return f"{missing[0]} is not among what was signed"
    if CARD in gone:
        return f"{CARD} was signed too, which people may edit: sign without it, as `adapterkit sign` does"
    return f"{gone[0]}, which was signed, is not there"


def _fingerprint(library: Any, key: Path, name: str) -> str:
    """What model-signing knows a public key by: the sha256 of its PEM, written anew."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    try:
        library.verifying.Config().use_elliptic_key_verifier(public_key=key)  # of a curve that it takes
        with key.open("rb") as file:
            public = load_pem_public_key(file.read(MOST_KEY_BYTES))
    except Exception as error:
        raise ConfigError(
            "a signer's key cannot be used", [f"{name}: {str(key)!r} is no public key of P-256, P-384 or P-521 in PEM"]
        ) from error
    return hashlib.sha256(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _signer(library: Any, key: Path, passphrase: str | None) -> Any:
    """Errors say nothing of what the key's file holds."""
    if not key.is_file():
        raise ConfigError("the key cannot be used", [f"there is no file {str(key)!r}"])
    try:
        secret = passphrase.encode() if passphrase else None
        return library.signing.Config().use_elliptic_key_signer(private_key=key, password=secret)
    except TypeError:
        reason = f"is encrypted: set {PASSPHRASE}" if not passphrase else "is not encrypted, and a passphrase is given"
    except Exception:  # noqa: BLE001 - whatever the library raises of a file that is none of its keys
        reason = "is no private key of P-256, P-384 or P-521 in PEM" + (
            ", or the passphrase is wrong" if passphrase else ""
        )
    raise ConfigError("the key cannot be used", [f"{str(key)!r} {reason}"])


def _either(signers: Mapping[str, Any]) -> str:
    return " or ".join(repr(name) for name in signers)


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else "it was made with another key, or changed"
