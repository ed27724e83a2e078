"""Hostile and damaged archives are refused with one line, before anything is written."""

import bz2
import contextlib
import io
import lzma
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
from cases import cases
from hypothesis import given
from hypothesis import strategies as st
from prepare_helpers import files_of, make_folder, make_zip, photo, sketch

from zssbir_cli.errors import DataError
from zssbir_cli.preparation import archives
from zssbir_cli.preparation.archives import open_source
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.workflows.prepare import prepare_own

GOOD = {
    f"own/{k}/{c}/{i}.{e}": v
    for k, e, v in (("photo", "jpg", photo(1)), ("sketch", "png", sketch(1)))
    for c in "abcd"
    for i in range(2)
}


def make_tar(path: Path, members: list[tarfile.TarInfo | tuple[str, bytes]], mode: str = "w") -> Path:
    """A tar with the good files and more members."""
    with tarfile.open(path, mode) as archive:
        for member in [*GOOD.items(), *members]:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A link or device."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("damage", [b"\0wn/photo/a/0.jpg", b"own/photo/a/0\0jpg"])
def test_names_with_a_nul_are_refused_and_not_cut(tmp_path: Path, damage: bytes) -> None:
    packed = make_zip(tmp_path / "a.zip", GOOD)
    packed.write_bytes(packed.read_bytes().replace(b"own/photo/a/0.jpg", damage))
    assert "is refused: its member" in read_all(packed)


def test_members_without_a_name_are_refused(tmp_path: Path) -> None:
    packer = special("", tarfile.DIRTYPE)  # of `tar.add(folder, arcname="")`: the folder itself
    assert read_all(make_tar(tmp_path / "whole.tar", [packer])) == ""
    tar = make_tar(tmp_path / "a.tar", [("", b"x")])
    packed = make_zip(tmp_path / "a.zip", {**GOOD, "x": b"x"})
    raw = bytearray(packed.read_bytes())
    at = raw.rindex(b"PK\1\2") + 28
    raw[at : at + 6] = struct.pack("<HHH", 0, 0, 1)  # its name becomes its comment
    packed.write_bytes(raw)
    for path in (tar, packed):
        assert "a member of it has no name" in read_all(path)


def test_folders_of_zips_that_windows_made(tmp_path: Path) -> None:
    source = open_source(make_zip(tmp_path / "a.zip", {"photo\\a\\": b"", "photo\\a\\1.jpg": photo(1)}))
    source.scan()
    assert source.listing.paths == ["photo/a/1.jpg"]


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "/etc/evil.jpg", "photo/../../evil.jpg", "C:/evil.jpg", "a\\..\\..\\evil.jpg"]
)
def test_members_that_point_outside(tmp_path: Path, name: str) -> None:
    packed = make_zip(tmp_path / "a.zip", {**GOOD, name: b"x"})
    for path in (
        packed,
        make_tar(tmp_path / "a.tar", [(name, b"x")]),
        make_tar(tmp_path / "a.tgz", [(name, b"x")], "w:gz"),
    ):
        with pytest.raises(DataError, match="points outside"):
            open_source(path).scan()
    with pytest.raises(DataError, match="points outside"):
        prepare_own([packed], out=tmp_path / "out", choices=Choices())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "a.tgz", "a.zip"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar(tmp_path: Path, kind: bytes) -> None:
    for suffix, mode in (("tar", "w"), ("tar.gz", "w:gz")):
        path = make_tar(tmp_path / f"a.{suffix}", [special("own/photo/a/l.jpg", kind, "/etc/passwd")], mode)
        with pytest.raises(DataError, match=r"is refused: its member .* is a (link|special file)"):
            open_source(path).scan()


def test_links_in_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("photo/a/l.jpg")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="is a link"):
        open_source(tmp_path / "a.zip").scan()


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 1 << 20)
    zeros = bytes(8 << 20)
    for path in (
        make_zip(tmp_path / "a.zip", {"photo/a/b.bmp": zeros}),
        make_tar(tmp_path / "a.tgz", [("photo/a/b.bmp", zeros)], "w:gz"),
        make_tar(tmp_path / "a.tar.xz", [("photo/a/b.bmp", zeros)], "w:xz"),
    ):
        with pytest.raises(DataError, match="bomb"):
            open_source(path).scan()


def test_a_zip_member_that_lies_about_its_size(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"photo/a/b.bmp": bytes(1 << 20)})
    data = path.read_bytes().replace(struct.pack("<I", 1 << 20), struct.pack("<I", 1000))
    path.write_bytes(data)
    source = open_source(path)
    source.scan()
    with pytest.raises(DataError, match="damaged at member"):
        source.read(0)


def test_a_header_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    info = special("x", tarfile.XHDTYPE)
    info.size = 6 << 30
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.PAX_FORMAT) + bytes(20_000))
    with pytest.raises(DataError, match=r"a header claims|cannot be read"):
        open_source(tmp_path / "a.tar").scan()


def test_encrypted_and_unusual_zips(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", GOOD, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="encrypted"):
        open_source(path).scan()
    with pytest.raises(DataError, match="unsupported compression"):
        open_source(make_zip(tmp_path / "b.zip", GOOD, zipfile.ZIP_LZMA)).scan()


def test_truncated_archives(tmp_path: Path) -> None:
    whole = {
        "a.zip": make_zip(tmp_path / "1", GOOD).read_bytes(),
        "a.tar": make_tar(tmp_path / "2", []).read_bytes()[:-10240],
        "a.tar.gz": make_tar(tmp_path / "3", [], "w:gz").read_bytes(),
        "a.tar.bz2": make_tar(tmp_path / "4", [], "w:bz2").read_bytes(),
    }
    for name, data in whole.items():
        for share in (0.1, 0.5, 0.9):
            path = tmp_path / name
            path.write_bytes(data[: int(len(data) * share)])
            error = read_all(path)
            # a tar may be cut exactly between two members, which nothing can tell
            assert error == "" if name == "a.tar" and error == "" else name in error


def read_all(path: Path) -> str:
    """Scan and read everything; the error's text, or "" when all was well."""
    try:
        source = open_source(path)
        source.scan()
    except DataError as error:
        return str(error)
    with contextlib.closing(source):
        try:
            for entry in range(len(source.listing.paths)):
                source.read(entry)
        except DataError as error:
            return str(error)
    return ""


def test_a_damaged_member_is_left_out_and_named(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "own")
    path = make_zip(tmp_path / "own.zip", files_of(root), zipfile.ZIP_STORED)
    data = path.read_bytes()
    jpeg = (root / "photo" / "egg" / "egg_2.jpg").read_bytes()
    at = data.index(jpeg) + len(jpeg) // 2
    path.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
    result = prepare_own([path], out=tmp_path / "out", choices=Choices(unseen="ant,bell"))
    assert result.manifest.skipped == 1
    assert "photo/egg/egg_2.jpg" in (tmp_path / "out" / "report.txt").read_text()


def test_sevenzip_is_read_and_cleaned_up(tmp_path: Path) -> None:
    py7zr = pytest.importorskip("py7zr")
    root = make_folder(tmp_path / "own")
    with py7zr.SevenZipFile(tmp_path / "own.7z", "w") as archive:
        archive.writeall(root, "own")
    result = prepare_own([tmp_path / "own.7z"], out=tmp_path / "out", choices=Choices(unseen="ant,bell"))
    plain = prepare_own([root], name="own", out=tmp_path / "plain", choices=Choices(unseen="ant,bell"))
    assert result.manifest.identity == plain.manifest.identity
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "own", "own.7z", "plain"]


def test_what_a_killed_run_unpacked_is_removed_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    packed = make_tar(tmp_path / "own.tgz", [], "w:gz")
    script = (
        "import os, signal, sys; from zssbir_cli.preparation.archives import open_source\n"
        "source = open_source(sys.argv[1]); source.scan(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(packed)], check=False)
    assert killed.returncode == -9
    left = list(tmp_path.glob(".zssbir-unpacked-*"))
    assert len(left) == 1
    first, second = open_source(packed), open_source(packed)
    first.scan()
    assert not left[0].exists()
    second.scan()
    assert first.read(0) == second.read(0)
    first.close()
    second.close()
    assert not list(tmp_path.glob(".zssbir-unpacked-*"))


def test_sources_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    for path in (tmp_path / "missing", tmp_path / "notes.txt"):
        with pytest.raises(DataError, match="archive"):
            open_source(path)


def test_an_archive_is_known_by_its_content(tmp_path: Path) -> None:
    """Downloads are often called something else than what they are."""
    packed = make_zip(tmp_path / "own.tar.gz", GOOD)
    tar = make_tar(tmp_path / "own.zip", [])
    squeezed = make_tar(tmp_path / "own.tar", [], "w:xz")
    (tmp_path / "odd.rar").write_bytes(b"Rar!\x1a\7\1\0" + bytes(50))
    for path in (packed, tar, squeezed):
        source = open_source(path)
        source.scan()
        assert sorted(source.listing.paths) == sorted(GOOD)
        assert {source.read(i) for i in range(len(GOOD))} == set(GOOD.values())
        source.close()
    with pytest.raises(DataError, match="is a RAR archive, which is not read here: unpack it first"):
        open_source(tmp_path / "odd.rar")


def test_of_members_of_one_name_the_last_counts_as_when_unpacking(tmp_path: Path) -> None:
    name = next(iter(GOOD))
    tar = make_tar(tmp_path / "a.tar", [(name, photo(7))])
    packed = tmp_path / "a.zip"
    make_zip(packed, GOOD)
    with zipfile.ZipFile(packed, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(name, photo(7))
    spelt = make_zip(tmp_path / "b.zip", {**GOOD, f"./{name}": photo(7)})
    for path in (tar, packed, spelt):
        source = open_source(path)
        source.scan()
        assert sorted(source.listing.paths) == sorted(GOOD)
        assert source.read(source.listing.paths.index(name)) == photo(7)
        assert source.listing.remarks == [
            f"an earlier {name} of the archive, which a later one of the same name replaces"
        ]


def test_names_in_utf8_of_zips_that_do_not_say_so(tmp_path: Path) -> None:
    """macOS packs them like that."""
    packed = make_zip(tmp_path / "a.zip", {"photo/cafe/1.jpg": photo(1), "photo/x\u0142/1.jpg": photo(2)})
    packed.write_bytes(packed.read_bytes().replace(b"cafe", "c\u00e9e".encode()))
    source = open_source(packed)
    source.scan()
    assert source.listing.paths == ["photo/c\u00e9e/1.jpg", "photo/x\u0142/1.jpg"]


def test_tars_joined_into_one_file_are_refused(tmp_path: Path) -> None:
    one, other = make_tar(tmp_path / "1.tar", []), make_tar(tmp_path / "2.tar", [])
    (tmp_path / "both.tar").write_bytes(one.read_bytes() + other.read_bytes())
    with pytest.raises(DataError, match="has further members behind its end mark"):
        open_source(tmp_path / "both.tar").scan()
    one.write_bytes(one.read_bytes() + b"a signature")
    open_source(one).scan()


ZIP, TAR = io.BytesIO(), io.BytesIO()
with zipfile.ZipFile(ZIP, "w", zipfile.ZIP_DEFLATED) as _archive:
    for _name, _data in GOOD.items():
        _archive.writestr(_name, _data)
with tarfile.open(fileobj=TAR, mode="w") as _tar:
    for _name, _data in GOOD.items():
        _info = tarfile.TarInfo(_name)
        _info.size = len(_data)
        _tar.addfile(_info, io.BytesIO(_data))


XZ, BZ2 = lzma.compress(TAR.getvalue()), bz2.compress(TAR.getvalue())


@cases(150)
@given(
    kind=st.sampled_from(["zip", "tar", "tar.gz", "tar.xz", "tar.bz2"]),
    edits=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=12),
    cut=st.integers(0, 3000),
)
def test_damaged_archives_give_clear_errors_only(
    tmp_path_factory: pytest.TempPathFactory, kind: str, edits: list[tuple[int, int]], cut: int
) -> None:
    whole = {"zip": ZIP.getvalue(), "tar.xz": XZ, "tar.bz2": BZ2}.get(kind, TAR.getvalue())
    raw = bytearray(whole[: max(1, len(whole) - cut)])
    for at, value in edits:
        raw[at % len(raw)] = value
    path = tmp_path_factory.getbasetemp() / f"fuzz.{kind}"
    path.write_bytes(zlib.compress(bytes(raw), 1, 31) if kind == "tar.gz" else bytes(raw))
    error = read_all(path)
    assert error == "" or "fuzz." in error
