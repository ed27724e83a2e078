"""`zssbir runs export`: results of several runs as one table for a paper; runs that differ only in the seed are one row."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zssbir_cli.engine.changes import FREE_KEYS, changes
from zssbir_cli.engine.provenance import Learnt
from zssbir_cli.engine.runs import find_run, is_outdated, read_record, run_folders
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.files import csv_text, parsed, reason
from zssbir_cli.names import listed
from zssbir_cli.recipe.loader import load_recipe
from zssbir_cli.workflows.runs import check_folder

FORMATS = ("markdown", "latex", "csv")
CONVENTIONS = ("voc", "plain", "hits", "trec")
SEED = "train.seed"
LATEX = str.maketrans({
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
})  # fmt: skip


@dataclass(frozen=True)
class TableRow:
    """Results of one way of training on one data set: by measure, the values (0-1) of its runs."""

    name: str
    data: str
    runs: tuple[str, ...]
    values: Mapping[str, tuple[float, ...]]

    def mean_and_deviation(self, measure: str) -> tuple[float | None, float | None]:
        """Mean and sample standard deviation in percent; None where there are too few values."""
        values = [100 * v for v in self.values.get(measure, ())]
        mean = statistics.mean(values) if values else None
        return mean, statistics.stdev(values) if len(values) > 1 else None

    def text(self, measure: str) -> str:
        """`40.31 ± 0.52` in percent, `40.31` for one run, `-` for none."""
        mean, deviation = self.mean_and_deviation(measure)
        return "-" if mean is None else f"{mean:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")


@dataclass(frozen=True)
class PaperTable:
    """Rows, the measures that are their columns, and what must be said beside them."""

    rows: tuple[TableRow, ...]
    measures: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Result:
    run: Path
    recipe: Mapping[str, Any]
    result: Mapping[str, Any]
    learnt: Learnt

    @property
    def key(self) -> str:
        """What two runs of one row have in common: all that decides what is learnt, but the seed."""
        learnt = [(c.key, c.new) for c in changes({}, self.recipe) if c.key not in (*FREE_KEYS, SEED)]
        return json.dumps([learnt, self.learnt.identity, self.learnt.start, self.about], sort_keys=True)

    @property
    def about(self) -> list[Any]:
        """On what it was measured."""
        names = (
            "identity",
            "protocol",
            "gallery",
            "queries",
            "chosen",
            "most_per_class",
            "seed",
            "extra",
            "which",
        )
        return [self.result.get(name) for name in names]

    def values(self, convention: str) -> dict[str, float]:
        """The measures that are in this convention, or have none."""
        wanted = (convention, "")
        return {m["name"]: float(m["value"]) for m in self.result["measures"] if m["convention"] in wanted}


def paper_table(
    names: Sequence[str],
    runs: Path,
    *,
    result: str = "zs",
    convention: str = "voc",
    measures: Sequence[str] = (),
) -> PaperTable:
    """Collect the result `result` (a file's name in eval/) of the runs `names` (all, if there are none).

    measures: columns; default: mAP and P at every cut that all runs have. Errors: UsageError, DataError (no result).
    """
    if convention not in CONVENTIONS:
        raise UsageError(f"--convention {convention}: one of {', '.join(CONVENTIONS)}")
    if not names:
        check_folder(runs)
    chosen = [find_run(name, runs).path for name in names] or list(run_folders(runs))
    found, without = [], []
    for run in chosen:
        file = run / "eval" / f"{result}.json"
        if file.is_file():
            found.append(_read(run, file))
        else:
            without.append(run.name)
    if not found:
        raise DataError(
            f"{runs}: no run has the result {result}; run `zssbir eval` first, or name another with --result"
        )
    found, copies = _without_copies(found)
    groups: dict[str, list[_Result]] = {}
    for one in found:
        groups.setdefault(one.key, []).append(one)
    common = [m for m in found[0].values(convention) if all(m in r.values(convention) for r in found)]
    if unknown := [m for m in measures if m not in common]:
        raise UsageError(f"--measure {unknown[0]}: all these runs have {', '.join(common)}")
    columns = tuple(measures) or tuple(m for m in common if m.startswith(("mAP@", "P@")) and "min" not in m)
    firsts = [group[0] for group in groups.values()]
    rows = [
        TableRow(
            _name(group[0], firsts), f"{group[0].result['data']} ({group[0].result['split']})",
            tuple(r.run.name for r in group),
            {m: tuple(r.values(convention)[m] for r in group) for m in columns},
        )
        for group in groups.values()
    ]  # fmt: skip
    below = _baselines(found, columns, convention)
    return PaperTable((*rows, *below), columns, (*_notes(found, rows, convention, without), *copies))


def _without_copies(found: Sequence[_Result]) -> tuple[list[_Result], list[str]]:
    """Results of different weights, and what to say of the others: a run and its copy say nothing of the spread."""
    first: dict[str, _Result] = {}
    notes = []
    for one in found:
        key = json.dumps([one.result.get("checkpoint") or str(one.run), one.about])
        if first.setdefault(key, one) is not one:
            notes.append(f"{one.run.name} has the weights of {first[key].run.name}: counted once")
    return list(first.values()), notes


def _baselines(found: Sequence[_Result], measures: Sequence[str], convention: str) -> list[TableRow]:
    """Chance and frozen starts that stand beside the results, each once for each data set."""
    rows: dict[str, TableRow] = {}
    for one in found:
        data = f"{one.result['data']} ({one.result['split']})"
        for b in one.result.get("baselines", []):
            name = f"{b['name']}: {b['about']}" if b["checkpoint"] else str(b["name"])
            values = {
                v["name"]: (float(v["value"]),) for v in b["values"] if v["convention"] in (convention, "")
            }
            if all(m in values for m in measures):
                key = json.dumps([b["name"], b["about"], b["checkpoint"], one.about])
                rows.setdefault(key, TableRow(name, data, (), values))
    return list(rows.values())


def _read(run: Path, file: Path) -> _Result:
    try:
        result = parsed(file.read_bytes())
        _ = [(m["name"], m["convention"], float(m["value"])) for m in result["measures"]]
        learnt = Learnt.read((read_record(run) or {}).get("data") or {})
        return _Result(run, load_recipe(run / "recipe.yaml").model_dump(mode="json"), result, learnt)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{file}: not a result of `zssbir eval` ({reason(error)})") from error


def _name(one: _Result, others: Sequence[_Result]) -> str:
    """The recipe's name, with what differs from the first row of that name."""
    name = str(one.recipe["name"])
    first = next(o for o in others if o.recipe["name"] == name)
    differ = [c for c in changes(first.recipe, one.recipe) if c.key not in (*FREE_KEYS, SEED)]
    told = [f"{c.key}={c.new}" for c in differ[:3]]
    if one.learnt.identity != first.learnt.identity:
        told.append(f"trained on {one.learnt.name} {one.learnt.identity[:8]}")
    return f"{name} ({', '.join(told)})" if told else name


def _notes(
    found: Sequence[_Result], rows: Sequence[TableRow], convention: str, without: Sequence[str]
) -> tuple[str, ...]:
    first = found[0].result
    notes = [
        f"percent, mAP in the {convention} convention, protocol {first['protocol']}: {first['queries']:,} queries, "
        f"gallery of {first['gallery']:,}"
    ]
    if any(len(row.runs) > 1 for row in rows):
        notes.append("mean and sample standard deviation over runs that differ only in the seed (n)")
    if len({(r.result.get("identity"), r.result["queries"], r.result["gallery"]) for r in found}) > 1:
        notes.append("the rows are not all from the same data: compare only those that are")
    used: dict[str, list[str]] = {}
    for r in found:
        used.setdefault(str(r.result.get("which") or "?"), []).append(r.run.name)
    told = [which if len(used) == 1 else f"{which} of {listed(names)}" for which, names in used.items()]
    notes.append(f"checkpoint {'; '.join(told)}")
    if part := [r.run.name for r in found if r.result.get("subset")]:
        notes.append(f"a part of the protocol's classes or images only: {listed(part)}")
    outdated = [r.run.name for r in found if is_outdated(r.run, r.result)]
    leaking = [r.run.name for r in found if r.result.get("leaks")]
    if outdated:
        notes.append(f"training has replaced these weights since, evaluate again: {listed(outdated)}")
    if leaking:
        notes.append(f"leaks between training and test are on record: {listed(leaking)}")
    if without:
        notes.append(f"without this result: {listed(list(without))}")
    return tuple(notes)


def formatted(table: PaperTable, form: str) -> str:
    """The table as Markdown, as LaTeX (booktabs), or as CSV (means and deviations in columns of their own)."""
    if form not in FORMATS:
        raise UsageError(f"--format {form}: one of {', '.join(FORMATS)}")
    head = ["recipe", "data", "n", *table.measures]
    rows = [[r.name, r.data, str(len(r.runs) or "-"), *map(r.text, table.measures)] for r in table.rows]
    if form == "csv":
        return _csv(table)
    if form == "markdown":
        lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in (head, *rows)]
        lines.insert(1, "|---|---|" + "---:|" * (len(head) - 2))
        return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]) + "\n"
    body = [" & ".join(cell.translate(LATEX).replace("±", r"$\pm$") for cell in row) + r" \\" for row in rows]
    return "\n".join([
        *(f"% {note}" for note in table.notes),
        rf"\begin{{tabular}}{{ll{'r' * (len(head) - 2)}}}", r"\toprule",
        " & ".join(cell.translate(LATEX) for cell in head) + r" \\", r"\midrule", *body, r"\bottomrule",
        r"\end{tabular}",
    ]) + "\n"  # fmt: skip


def _csv(table: PaperTable) -> str:
    pairs = [name for m in table.measures for name in (f"{m} %", f"{m} sd")]
    lines: list[list[object]] = [["recipe", "data", "n", "runs", *pairs]]
    for row in table.rows:
        numbers = [x for m in table.measures for x in row.mean_and_deviation(m)]
        cells = ["" if x is None else f"{x:.4f}" for x in numbers]
        lines.append([row.name, row.data, len(row.runs) or "", " ".join(row.runs), *cells])
    return csv_text(lines)
