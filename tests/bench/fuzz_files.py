"""Files that a fuzzer makes out of whole ones: runs' texts with other values, bundles, galleries, rows of other programs."""

import contextlib
import json
import random
import warnings
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from damage import DEEP, TEXTS, VALUES, damaged, warped

from zssbir_cli.data.embeddings import EmbeddingInfo, read_embeddings, write_embeddings
from zssbir_cli.engine.meta import meta_text


def other_values(file: Path, raw: bytes, rng: random.Random) -> bytes:
    text = raw.decode()
    if rng.random() < 0.05:
        return DEEP.encode()
    if file.suffix == ".yaml":
        return yaml.safe_dump(warped(yaml.safe_load(text), rng), allow_unicode=True).encode(
            "utf-8", "replace"
        )
    if file.suffix == ".jsonl":
        lines = text.splitlines()
        lines[at] = json.dumps(warped(json.loads(lines[at := rng.randrange(len(lines))]), rng))
        return "\n".join(lines).encode()
    content = warped(json.loads(text), rng)
    if file.name == "meta.json" and isinstance(content, dict) and rng.random() < 0.8:
        content.pop("seal", None)
        return meta_text(content).encode("utf-8", "replace")  # as its writer would have sealed it
    return json.dumps(content).encode()


def repack(file: Path, rng: random.Random) -> None:
    """The bundle with a member that is damaged, or with one that has another name."""
    with zipfile.ZipFile(file) as bundle:
        parts = {n: bundle.read(n) for n in bundle.namelist()}
    victim = rng.choice(sorted(parts))
    if rng.random() < 0.6:
        place = Path(victim)
        values = place.suffix in (".json", ".jsonl", ".yaml") and rng.random() < 0.8
        parts[victim] = (other_values if values else lambda _, raw, r: damaged(raw, r))(
            place, parts[victim], rng
        )
    else:
        names = ("", "..", "/x", "eval/../../x.json", "eval/", "eval/a.json/b.json", "EVAL/zs.json", "eval/\ud800.json", victim,
                 "x" * 300, "eval/" + "y" * 300 + ".json", "recipe.yaml/x", "checkpoints/best", *TEXTS)  # fmt: skip
        with contextlib.suppress(UnicodeEncodeError, IndexError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with zipfile.ZipFile(file, "a") as bundle:
                bundle.writestr(rng.choice(names), rng.choice(list(parts.values())))
        return
    with zipfile.ZipFile(
        file, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2))
    ) as bundle:
        for name, raw in parts.items():
            bundle.writestr(name, raw)


def rewrite(file: Path, rng: random.Random) -> None:
    """An embeddings file as its writer would make it of values that nobody has, or with damaged bytes."""
    if rng.random() < 0.3:
        file.write_bytes(damaged(file.read_bytes(), rng))
        return
    old = read_embeddings(file)
    info = vars(old.info) | {}
    field = rng.choice(sorted(info))
    info[field] = rng.choice(VALUES)
    if field == "classes":
        info[field] = rng.choice(((), ("a",), ("", ""), tuple("ab" * 5000)))
    rows, n = np.array(old.embedding), len(old)
    label, kind = np.full(n, rng.choice((-1, 0, 5, 2**31 - 1, -(2**31)))), np.full(n, 1)
    match rng.randrange(6):
        case 0:
            rows = rows[:, : rng.choice((1, 3))]
        case 1:
            kind = np.array([rng.choice((0, 1, 2, 255)) for _ in range(n)])
        case 2:
            rows = rows * np.float32(rng.choice((1e-38, 1e38, -1)))
    names = [rng.choice((s, "", "..", "/x", "a\nb", "\udce9", "x" * 5000, "a\\b")) for s in old.sources]
    write_embeddings(
        file, rows, label, kind, names, EmbeddingInfo(**info), stamps=rng.choice((old.stamps, None))
    )


def user_rows(here: Path, rng: random.Random) -> Path:
    """A file of embeddings by another program, with arrays of any kind and shape."""
    numbers = np.random.default_rng(rng.randrange(1 << 30))

    def rows() -> Any:
        n, d = rng.choice((0, 1, 3, 3, 3, 8)), rng.choice((0, 1, 2, 2, 2, 5))
        kind = rng.choice(("f4", "f8", "f4", "f2", "i8", "u1", "?", "c8", "U3", "S2", "M8[s]", "f4,i4", "O"))
        array = (numbers.standard_normal((n, d)) * rng.choice((1, 1, 1e-30, 1e30, 0))).astype("f8")
        if array.size and rng.random() < 0.2:
            array.flat[0] = rng.choice((np.nan, np.inf, 1e308))
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return (
                rng.choice((array, array.ravel(), array[None]))
                if kind in ("f4,i4", "M8[s]")
                else array.astype(kind)
            )

    def labels(n: int) -> Any:
        choices = [*VALUES, *range(3), "a", "b", "A", "ä", "a\u0308"]
        few = [rng.choice(choices) for _ in range(2)]
        made = [rng.choice(few) for _ in range(n)]
        with contextlib.suppress(ValueError, TypeError, OverflowError, UnicodeError):
            return np.array(made, rng.choice((str, int, float, "S4", "i1", "u8", object, bool)))
        return np.arange(n)

    query, gallery = rows(), rows()
    arrays = {"query": query, "gallery": gallery, "query_labels": labels(len(query)), "gallery_labels": labels(len(gallery)),
              "query_sources": labels(len(query))}  # fmt: skip
    for name in sorted(arrays):
        if rng.random() < 0.05:
            del arrays[name]
    file = here / rng.choice(("u.npz", "u.h5", "u.csv", "u.npy", "u.hdf5"))
    file.unlink(missing_ok=True)
    if file.suffix == ".npz":
        np.savez(file, **arrays)
    elif file.suffix == ".npy":
        np.save(file, query)
    elif file.suffix == ".csv":
        cells = [*VALUES, 0.5, 1.5, "query", "gallery", "sketch", "photo", "a,b", '"', "\n"]
        head = rng.choice(
            (["set", "label", "e0", "e1"], ["set", "label", "source", "1", "2"], ["label", "set", "", "x"])
        )
        lines = [[rng.choice(("query", "gallery")), rng.choice("ab"), *(["x"] if len(head) > 4 else []), 1, rng.random()] for _ in range(8)]  # fmt: skip
        for _ in range(rng.randrange(3)):
            line = rng.choice(lines)
            line[rng.randrange(len(line))] = rng.choice(cells)
        text = "\n".join(
            rng.choice((",", ",", ",", ";", "\t")).join(map(str, line)) for line in (head, *lines)
        )
        file.write_bytes(text.encode(rng.choice(("utf-8", "utf-16", "cp1252")), "replace"))
    else:
        with h5py.File(file, "w") as store, contextlib.suppress(TypeError, ValueError):
            for name, array in arrays.items():
                store[name] = array
    if rng.random() < 0.3:
        file.write_bytes(damaged(file.read_bytes(), rng))
    return file
