"""Repositories in folders and in memory, and files to publish there."""

import json
import uuid
from pathlib import Path

from adapterkit.registry import default_registry
from adapterkit_fsspec.records import File, Record, version_id

BUCKET = "adapters"
NAMES = ("adapter_config.json", "adapter_model.safetensors", "adapterkit.json")


def repository(url):
    return default_registry().remote(url.partition("://")[0]).open(url)


def new_url(scheme, folder):
    if scheme == "file":
        return f"file://{folder / 'repository'}"
    if scheme == "sftp":
        return f"sftp://127.0.0.1/{uuid.uuid4().hex}/cards"
    return f"{scheme}://{BUCKET}/{uuid.uuid4().hex}/cards"


def files(folder, text, names=NAMES):
    """Files of which each holds its name and a text."""
    folder = folder / uuid.uuid4().hex
    made = {}
    for name in names:
        made[name] = folder / name
        made[name].parent.mkdir(parents=True, exist_ok=True)
        made[name].write_text(f"{name}: {text}", encoding="utf-8")
    return made


def push(place, held, *, parent="", message="", replaces=("*",)):
    return place.push(held, message=message, parent=parent, private=True, replaces=replaces)


def fetched(place, revision, folder, names=NAMES):
    folder = folder / uuid.uuid4().hex
    folder.mkdir()
    place.fetch(revision, names, folder)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def record(held, **changes):
    """A version's record as a stranger may write it, and its file."""
    listed = {name: File(sha256_of(path), path.stat().st_size) for name, path in held.items()}
    made = Record(id=version_id(listed), parent="", message="", published="", files=listed)
    return json.loads(made.write()) | changes


def sha256_of(path):
    import hashlib

    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
