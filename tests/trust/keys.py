"""Key pairs and policies for tests."""

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

CURVES = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1, "secp256k1": ec.SECP256K1}


def make_keys(folder, name, *, curve="P-256", passphrase=None):
    """The files of a private and of a public key."""
    key = rsa.generate_private_key(65537, 2048) if curve == "RSA" else ec.generate_private_key(CURVES[curve]())
    encrypted = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encrypted))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def write_policy(folder, *rules, signers=()):
    """A policy with rules as pairs of a source and names of signers; each signer's key is ``<name>.pub``."""
    lines = ["[signers]", *(f'{name} = "{name}.pub"' for name in signers)]
    for source, names in rules:
        lines += ["[[allow]]", f'source = "{source}"']
        lines += [f"signers = {list(names)}"] if names else []
    path = folder / "trust.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
