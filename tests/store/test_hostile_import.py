"""Imports that mean harm: refused by name, and nothing is written outside the store, or kept in it."""

import gzip
import io
import json
import os
import shutil
import tarfile

import pytest

from adapterkit import ArtifactError, Store
from adapterkit.artifact.layout import MANIFEST, WEIGHTS
from adapterkit.store import archive


@pytest.fixture
def export(made, tmp_path):
    """An honest export, as a folder."""
    return shutil.copytree(made / "export", tmp_path / "export")


@pytest.fixture
def other(made, tmp_path):
    """A store that holds something already, in a room of its own."""
    shutil.copytree(made / "store", tmp_path / "room" / "store")
    return Store(tmp_path / "room" / "store")


def refused(store, path, said, **options):
    """The import is refused for a reason, and everything is as it was, in the store and around it."""
    around = store.folder.parents[1]
    before = snapshot(around)
    with pytest.raises(ArtifactError, match=said) as error:
        store.import_(path, **options)
    assert str(error.value).startswith(f"import of {str(path)!r} is refused: ")
    assert snapshot(around) == before
    assert store.verify().orphans == 0


def snapshot(folder):
    found = (path for path in folder.rglob("*") if not path.name.startswith("index.sqlite"))
    return {str(path): path.lstat().st_size if path.is_file() else None for path in found}


def packed(export, path, *members, mode="w", kind=tarfile.USTAR_FORMAT):
    """The export as a tar, with more members behind."""
    with tarfile.open(path, mode, format=kind) as tar:
        tar.add(export, arcname=".")
        for member in members:
            info, data = member if isinstance(member, tuple) else (member, b"")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def info(name, kind=tarfile.REGTYPE, link=""):
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def relisted(export, **changes):
    """Change what ``store.json`` says of the one version."""
    values = json.loads((export / "store.json").read_text())
    values["versions"][0].update(changes)
    (export / "store.json").write_text(json.dumps(values))
    return export


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "../../evil.txt",
        "/tmp/evil",
        "cards/../../evil",
        "cards/1/../../../evil",
        "cards/1/evil.py",
        "cards/1/sub/adapterkit.json",
        "cards/x/adapterkit.json",
        "cards/01/adapterkit.json",
        "Cards/1/adapterkit.json",
        "cards/1/readme.md",
        "CARDS/1/adapterkit.json",
        "ca\u0301rds/1/adapterkit.json",
        "c\u00e1rds/1/adapterkit.json",
        "C:\\evil",
        "cards\\1\\adapterkit.json",
        "a b/1/adapterkit.json",
        "./../evil",
        "evil",
        "store.json/evil",
        ".",
        "",
    ],
)
def test_a_member_that_is_no_file_of_an_export(export, other, tmp_path, name):
    refused(other, packed(export, tmp_path / "x.tar", (info(name), b"evil")), "is no file of an export")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a FIFO"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (tarfile.CONTTYPE, "of the kind '7'"),
        (tarfile.XHDTYPE, "of the kind 'x'"),
        (tarfile.XGLTYPE, "of the kind 'g'"),
        (tarfile.GNUTYPE_LONGNAME, "of the kind 'L'"),
        (b"\xff", "of the kind"),
    ],
)
def test_a_member_that_is_no_plain_file(export, other, tmp_path, kind, said):
    member = info("cards/2/adapterkit.json", kind, "/etc/passwd")
    refused(other, packed(export, tmp_path / "x.tar", member), said)


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "cards/1/sub", "Cards"])
def test_a_folder_that_is_none_of_an_export(export, other, tmp_path, name):
    refused(
        other, packed(export, tmp_path / "x.tar", info(name, tarfile.DIRTYPE)), "is of the kind '5', not a plain file"
    )


def test_a_name_with_a_nul(export, other, tmp_path):
    path = packed(export, tmp_path / "x.tar", (info("cards/1/adapterkit.json?x"), b"evil"))
    data = path.read_bytes().replace(b"cards/1/adapterkit.json?x", b"cards/1/adapterkit.json\0x")
    path.write_bytes(data)
    refused(
        other, path, "damaged"
    )  # its checksum does not fit; and where it does, the name ends at the NUL, and comes twice
    rewritten = bytearray(data)
    at = data.index(b"cards/1/adapterkit.json\0x")
    block = rewritten[at : at + 512]
    rewritten[at + 148 : at + 156] = b"%06o\0 " % archive._checksum(block)
    path.write_bytes(rewritten)
    refused(other, path, r"'cards/1/adapterkit.json' comes twice")


def test_a_member_that_comes_twice(export, other, tmp_path):
    refused(other, packed(export, tmp_path / "x.tar", (info("cards/1/adapterkit.json"), b"evil")), "comes twice")


def test_extended_headers_with_another_name(export, other, tmp_path):
    member = info("cards/1/" + "é" * 200)
    refused(other, packed(export, tmp_path / "x.tar", (member, b"x"), kind=tarfile.PAX_FORMAT), "of the kind 'x'")


def test_a_sparse_map_in_an_extended_header(export, other, tmp_path):
    member = info(f"cards/2/{WEIGHTS}")
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 50)}
    refused(other, packed(export, tmp_path / "x.tar", (member, b"x"), kind=tarfile.PAX_FORMAT), "of the kind 'x'")


def test_a_hundred_thousand_members(other, tmp_path):
    path = tmp_path / "x.tar"
    with path.open("wb") as out:
        for number in range(1, 100_001):
            out.write(archive.header(f"a/{number}/adapterkit.json", 0))
    refused(other, path, "more than 40,001 members")


def test_more_versions_than_any_export_has(export, other):
    values = json.loads((export / "store.json").read_text())
    values["versions"] = [{**values["versions"][0], "number": number} for number in range(1, 10_003)]
    (export / "store.json").write_text(json.dumps(values))
    refused(other, export, "at most 10,000 are read")


@pytest.mark.parametrize("size", [1 << 40, (1 << 63) - 1])
def test_a_member_that_claims_to_be_huge(export, other, tmp_path, size):
    path = packed(export, tmp_path / "x.tar")
    data = path.read_bytes().rstrip(b"\0")
    data += bytes(-len(data) % 512) + archive.header(f"cards/2/{WEIGHTS}", size)
    path.write_bytes(data)
    refused(other, path, "bytes; at most .* are read")


def test_a_file_that_is_mostly_holes(other, tmp_path):
    path = tmp_path / "x.tar"
    with path.open("wb") as out:
        out.write(archive.header(f"cards/1/{WEIGHTS}", 30 << 30))
        out.truncate(31 << 30)
    refused(other, path, "unfolds to more than", max_bytes=1 << 20)


def test_a_gzip_that_unfolds_without_end(other, tmp_path):
    path = tmp_path / "x.tar.gz"
    with gzip.open(path, "wb") as out:
        out.write(archive.header(f"cards/1/{WEIGHTS}", 2 << 30))
        for _ in range(200):
            out.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    refused(other, path, "unfolds to more than .* than an export of its size holds")


@pytest.mark.parametrize("cut", [1, 100, 512, 600, 5000])
def test_a_tar_that_is_cut_off(export, other, tmp_path, cut):
    path = packed(export, tmp_path / "x.tar")
    path.write_bytes(path.read_bytes()[:cut])
    refused(other, path, "cut off, or no tar")
    zipped = path.with_suffix(".tar.gz")
    zipped.write_bytes(gzip.compress(packed(export, tmp_path / "x.tar").read_bytes())[: cut + 10])
    refused(other, zipped, "cannot be unpacked|cut off")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 a zip", b"\0" * 1024, b"\x1f\x8b garbage", os.urandom(4096)])
def test_a_file_that_is_no_tar(other, tmp_path, data):
    (tmp_path / "x.tar").write_bytes(data)
    refused(other, tmp_path / "x.tar", "no tar|cannot be unpacked|is missing")


def test_an_index_of_another_schema(export, other):
    values = json.loads((export / "store.json").read_text())
    (export / "store.json").write_text(json.dumps({**values, "schema": 2}))
    refused(other, export, "store.json has schema 2; 1 is known here: update adapterkit")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "../evil"}, "name='../evil' does not fit"),
        ({"name": "a/b"}, "does not fit"),
        ({"name": "nul"}, "the name of a device"),
        ({"number": 0}, "has the number 0"),
        ({"number": -1}, "has the number -1"),
        ({"number": 1 << 60}, "has the number"),
        ({"number": "1"}, "must be a whole number"),
        ({"digest": "0" * 64}, "is not the adapter that store.json lists"),
        ({"files": {}}, "lists no adapterkit.json"),
        (
            {"files": {MANIFEST: {"sha256": "0" * 64, "bytes": 1}, "../x": {"sha256": "", "bytes": 1}}},
            "is no file of an adapter",
        ),
        (
            {"files": {MANIFEST: {"sha256": "0" * 64, "bytes": -5}}},
            "has .* bytes; store.json says -5|is not in store.json",
        ),
        ({"files": {MANIFEST: {"sha256": "0" * 64}}}, "bytes"),
        ({"why": "line\nbreak"}, "give one line"),
        ({"evil": 1}, "evil"),
    ],
)
def test_a_list_that_lies(export, other, changes, said):
    refused(other, relisted(export, **changes), said)


@pytest.mark.parametrize(
    "aliases",
    [
        [{"name": "cards", "alias": "../x", "number": 1, "protected": False}],
        [{"name": "cards", "alias": "7", "number": 1, "protected": False}],
        [{"name": "tone", "alias": "x", "number": 1, "protected": False}],
        [{"name": "cards", "alias": "x", "number": 1, "protected": False}] * 2,
        ["cards@x"],
        {},
    ],
)
def test_aliases_that_lie(export, other, aliases):
    values = json.loads((export / "store.json").read_text())
    (export / "store.json").write_text(json.dumps({**values, "aliases": aliases}))
    refused(other, export, "store.json")


def test_a_manifest_that_lies(export, other):
    manifest = export / "cards" / "1" / MANIFEST
    manifest.write_bytes(manifest.read_bytes().replace(b'"lora"', b'"iora"'))
    refused(other, export, "adapterkit.json")


def test_weights_that_are_others(export, other):
    weights = export / "cards" / "1" / WEIGHTS
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    refused(other, export, f"{WEIGHTS} is not the file that adapterkit.json lists")


@pytest.mark.parametrize("number", [(1 << 31) - 1, 10**15 - 1, 10_004])
def test_a_number_that_would_take_all_that_there_are(export, other, adapters, tmp_path, number):
    relisted(export, number=number)
    (export / "cards" / "1").rename(export / "cards" / str(number))
    weights = export / "cards" / str(number)
    other.remove("cards@1")  # so that what is imported is not there
    brought = other.import_(export)
    assert {there: str(here) for there, here in brought.added.items()} == {f"cards@{number}": "cards@4"}
    assert weights.exists()
    assert str(other.add(adapters[1], "cards")) == "cards@5"
    other.export(tmp_path / "own")
    assert len(Store(tmp_path / "third").import_(tmp_path / "own").added) == 4


def test_a_number_that_is_near_is_kept(export, other):
    relisted(export, number=10_003)
    (export / "cards" / "1").rename(export / "cards" / "10003")
    other.remove("cards@1")
    assert str(other.import_(export).added["cards@10003"]) == "cards@10003"


def test_one_bad_adapter_keeps_the_good_ones_out(filled, other, tmp_path):
    filled.export(tmp_path / "export")
    weights = tmp_path / "export" / "cards" / "3" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    refused(other, tmp_path / "export", f"{WEIGHTS} is not the file that adapterkit.json lists")


def plant_link(export):
    (export / "cards" / "1" / "adapterkit.json").unlink()
    (export / "cards" / "1" / "adapterkit.json").symlink_to("/etc/passwd")


def plant_linked_folder(export):
    (export / "cards").rename(export.parent / "elsewhere")
    (export / "cards").symlink_to(export.parent / "elsewhere")


def plant_fifo(export):
    (export / "cards" / "1" / "adapterkit.json").unlink()
    os.mkfifo(export / "cards" / "1" / "adapterkit.json")


def plant_folder(export):
    (export / "cards" / "1" / "adapterkit.json").unlink()
    (export / "cards" / "1" / "adapterkit.json").mkdir()


def plant_script(export):
    (export / "cards" / "1" / "modeling.py").write_text("import os")


def plant_case(export):
    (export / "cards" / "1" / "readme.md").write_text("another")


def plant_deep(export):
    (export / "cards" / "1" / "a" / "b" / "c").mkdir(parents=True)


def plant_listing_link(export):
    (export / "store.json").rename(export.parent / "listing.json")
    (export / "store.json").symlink_to(export.parent / "listing.json")


def plant_nothing(export):
    (export / "cards" / "1" / WEIGHTS).unlink()


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (plant_link, "'cards/1/adapterkit.json' is neither a plain file"),
        (plant_linked_folder, "'cards' is neither a plain file"),
        (plant_fifo, "'cards/1/adapterkit.json' is neither a plain file"),
        (plant_folder, "'cards/1/adapterkit.json' is neither a plain file"),
        (plant_script, "'cards/1/modeling.py' is not in store.json"),
        (plant_case, "'cards/1/readme.md' is not in store.json"),
        (plant_deep, "'cards/1/a' is neither"),
        (plant_listing_link, "store.json is a link that leads out of the folder"),
        (plant_nothing, f"'cards/1/{WEIGHTS}' is missing"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_folder_with_what_is_no_export(export, other, plant, said):
    plant(export)
    refused(other, export, said)


@pytest.mark.parametrize("path", ["nothing", "nothing.tar", "with\0nul"])
def test_what_is_not_there(other, tmp_path, path):
    with pytest.raises(ArtifactError, match="is refused"):
        other.import_(f"{tmp_path}/{path}")
