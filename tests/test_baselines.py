"""The yardsticks beside a result: chance is right, the frozen start is the backbone as it was, warnings come when due."""

import json
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from retrieval_helpers import make_run

import zssbir_cli as zssbir
from zssbir_cli.compute.seeds import seed_all
from zssbir_cli.data.embeddings import read_embeddings
from zssbir_cli.embedding.weights import RunWeights
from zssbir_cli.engine import checkpoint
from zssbir_cli.engine.meta import meta_text
from zssbir_cli.evaluation import baselines
from zssbir_cli.evaluation.measure import DEFAULT_K, useful_cuts
from zssbir_cli.methods.table import build_method
from zssbir_cli.recipe.loader import load_recipe
from zssbir_cli.retrieval.chance import chance_of
from zssbir_cli.retrieval.metrics import Metrics, evaluate
from zssbir_cli.workflows.train import train


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_run(tmp_path / "runs" / "one", tiny_recipe, seed=5)


def random_ranking(sizes: list[int], k: tuple[int, ...], seed: int) -> Metrics:
    """An evaluation whose scores are noise."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    queries = np.arange(len(sizes)).repeat(200)
    rows = rng.standard_normal((len(labels), 16)).astype(np.float32)
    return evaluate(rng.standard_normal((len(queries), 16)).astype(np.float32), rows, queries, labels, k=k)


@pytest.mark.parametrize("sizes", [[3, 10, 27], [1, 1, 2], [40], [5] * 6])
def test_chance_is_the_mean_of_random_orders(sizes: list[int]) -> None:
    k = (2, 15) if sum(sizes) > 15 else (2,)
    chance = chance_of(random_ranking(sizes, k, 0))
    seen = [random_ranking(sizes, k, seed) for seed in range(12)]
    for name, convention in chance.columns:
        values = np.array([m.get(name, convention) for m in seen])
        sure = 4 * values.std() / np.sqrt(len(values)) + 0.004
        assert chance.get(name, convention) == pytest.approx(values.mean(), abs=sure), (name, convention)


def test_chance_in_closed_form() -> None:
    chance = chance_of(random_ranking([3, 10, 27], (10,), 0))
    for relevant, label in ((3, 0), (10, 1), (27, 2)):
        gallery, harmonic = 40, float((1 / np.arange(1, 41)).sum())
        expected = (relevant - 1) / (gallery - 1) * (1 - harmonic / gallery) + harmonic / gallery
        assert chance.per_class("mAP@all", "plain")[label] == pytest.approx(expected)
        assert chance.per_class("P@10")[label] == pytest.approx(relevant / gallery)
        assert chance.per_class("recall@10")[label] == pytest.approx(10 / gallery)
        assert chance.per_class("mAP@all", "voc")[label] > expected


def test_chance_of_a_large_gallery_needs_little_memory() -> None:
    size, one = 60_000, np.ones(1, np.int64)
    few = random_ranking([3], (2,), 0)
    large = replace(few, gallery=size, relevant=one * 8_000, query_labels=one - 1, curve=few.curve[:1])
    tracemalloc.start()
    try:
        chance = chance_of(large)
        assert tracemalloc.get_traced_memory()[1] < 300e6
    finally:
        tracemalloc.stop()
    assert chance.get("mAP@all", "plain") < chance.get("mAP@all", "voc") < 8 / 60 + 0.01


def test_both_yardsticks_stand_beside_the_result(run: Path, tiny_recipe: Path, tiny_demo: Path) -> None:
    outcome = zssbir.evaluate(run, k=[5], device="cpu")
    saved = json.loads(outcome.result.read_text())  # type: ignore[union-attr]
    chance, start = saved["baselines"]
    assert (chance["name"], start["name"]) == ("chance", "frozen start")
    values = {(v["name"], v["convention"]): v["value"] for v in start["values"]}
    assert set(values) == {(m["name"], m["convention"]) for m in saved["measures"]}
    alone = zssbir.evaluate(model=str(tiny_recipe), data=tiny_demo, k=[5], device="cpu", report=False)
    assert values["mAP@all", "voc"] == pytest.approx(alone.value(), abs=1e-9)
    assert start["checkpoint"] == alone.as_json()["checkpoint"]
    assert [b.name for b in alone.evaluation.baselines] == ["chance"]
    assert {v["name"]: v["value"] for v in chance["values"]}["P@5"] == pytest.approx(4 / 52)
    page = (outcome.report / "report.html").read_text()  # type: ignore[operator]
    assert re.search(r"<th[^>]*>chance</th>\s*<th[^>]*>frozen start</th>", page)
    assert "| chance | frozen start |" in (outcome.report / "report.md").read_text()  # type: ignore[operator]


def test_the_start_is_embedded_once_and_again_when_the_data_change(run: Path) -> None:
    zssbir.evaluate(run, k=[5], device="cpu", report=False)
    (file,) = (run / "embeddings").glob("frozen-*.h5")
    stamp, made = file.stat().st_mtime_ns, read_embeddings(file).info.checkpoint
    zssbir.evaluate(run, k=[5], device="cpu", report=False)
    assert file.stat().st_mtime_ns == stamp
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "\n# the same\n")
    zssbir.evaluate(run, k=[5], device="cpu", report=False)
    assert file.stat().st_mtime_ns == stamp
    assert read_embeddings(file).info.checkpoint == made
    assert not zssbir.evaluate(run, k=[5], device="cpu", report=False, baselines=False).evaluation.baselines


def test_a_warning_when_training_gained_nothing(run: Path, tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe)
    seed_all(recipe.train.seed)
    start = build_method(recipe)  # the run's weights are its own start
    info = checkpoint.inspect(run / "checkpoints" / "best")
    facts = json.loads((info.path / "meta.json").read_text())
    facts = {key: facts[key] for key in ("step", "epoch", "recipe", "data", "metrics", "precision")}
    checkpoint.save(info.path, start.retrieval_state(), None, facts)
    outcome = zssbir.evaluate(run, k=[5], device="cpu", report=False, precision="fp32")
    (warning,) = outcome.evaluation.inputs.warnings
    assert warning.startswith("training did not help: +0.00 points")


def test_a_clear_gain_is_no_warning_and_a_loss_is_one(run: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(5).repeat(8)
    centres = rng.standard_normal((5, 16))

    def of(noise: float) -> Metrics:
        rows = (centres[labels] + noise * rng.standard_normal((40, 16))).astype(np.float32)
        return evaluate(rows, rows[::-1].copy(), labels, labels[::-1].copy(), k=(5,))

    good, bad = of(0.5), of(3.0)
    assert baselines._gain(good, bad) == []
    assert "did not help" in baselines._gain(bad, good)[0]
    assert baselines._gain(of(3.0), of(3.0))


def test_where_every_photo_is_relevant_nothing_is_said_of_a_gain() -> None:
    rows, labels = np.eye(3, dtype=np.float32), np.zeros(3, np.int64)
    everything = evaluate(rows, rows, labels, labels, k=(1,))
    assert baselines._gain(everything, everything) == []


def test_what_is_not_here_is_a_note_and_nothing_is_fetched(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "is_cached", lambda name: False)
    meta = run / "checkpoints" / "best" / "meta.json"
    meta.write_text(
        meta_text(json.loads(meta.read_text().replace('"weights": "none"', '"weights": "pretrained"')))
    )
    outcome = zssbir.evaluate(run, k=[5], device="cpu", report=False)
    assert [b.name for b in outcome.evaluation.baselines] == ["chance"]
    assert any("not on this machine" in note for note in outcome.evaluation.inputs.notes)


def test_cuts_that_say_nothing_are_left_out_and_said_once(run: Path) -> None:
    outcome = zssbir.evaluate(run, device="cpu", report=False)
    assert {m.name for m in outcome.evaluation.measures} >= {"P@4", "mAP@4"}
    assert not any("100" in m.name for m in outcome.evaluation.measures)
    said = [n for n in outcome.evaluation.inputs.notes if "k = " in n]
    assert said == [
        "k = 100 and 200 left out: a query has at most 4 relevant photos, in a gallery of 52; cuts are 4 (choose others with -k)"
    ]
    assert outcome.result.name == "zs.json"  # type: ignore[union-attr]
    some = zssbir.evaluate(run, k=[3, 52, 60], device="cpu", report=False)
    assert some.evaluation.metrics.k == (3,)


def test_a_cut_that_was_asked_for_stays_with_a_word_on_what_it_can_reach(run: Path) -> None:
    found = zssbir.evaluate(run, k=[3, 5], device="cpu", report=False).evaluation
    assert found.metrics.k == (3, 5)
    assert [n for n in found.inputs.notes if "k = " in n] == [
        "k = 5: a query has at most 4 relevant photos, so that P@5 cannot exceed 80.00 %"
    ]


@pytest.mark.parametrize(
    ("asked", "gallery", "relevant", "kept"),
    [
        (DEFAULT_K, 17101, 750, (100, 200)),  # a benchmark
        (DEFAULT_K, 17101, 150, (100,)),
        (DEFAULT_K, 520, 40, (10,)),
        (DEFAULT_K, 150, 140, (100,)),
        ((100,), 520, 40, (100,)),
        ((600, 100), 520, 40, (100,)),
        (DEFAULT_K, 1, 1, (1,)),
    ],
)
def test_which_cuts_tell_rankings_apart(
    asked: tuple[int, ...], gallery: int, relevant: int, kept: tuple[int, ...]
) -> None:
    assert useful_cuts(asked, gallery, relevant) == kept


def test_vectors_of_another_model_have_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows, labels = np.eye(4).repeat(3, 0), np.arange(4).repeat(3)
    np.savez("e.npz", query=rows, gallery=rows, query_labels=labels, gallery_labels=labels)
    (chance,) = zssbir.evaluate_file("e.npz", k=[3]).evaluation.baselines
    assert chance.values["P@3", ""] == pytest.approx(0.25)


def test_the_start_is_of_the_recipe_that_was_trained(run: Path) -> None:
    """As the run itself: what was written into recipe.yaml after training plays no role."""
    before = zssbir.evaluate(run, k=[5], device="cpu", report=False).evaluation.baselines[1]
    file = run / "recipe.yaml"
    file.write_text(file.read_text().replace("size: 32", "size: 48"))
    after = zssbir.evaluate(run, k=[5], device="cpu", report=False).evaluation.baselines[1]
    assert after.values == before.values
    file.write_text("{")
    assert (
        zssbir.evaluate(run, k=[5], device="cpu", report=False).evaluation.baselines[1].values
        == before.values
    )


def test_a_random_start_is_the_one_that_the_run_began_with(tiny_recipe: Path, tmp_path: Path) -> None:
    """Not another network of random weights. A blend of 0 stores the start itself."""
    recipe = load_recipe(tiny_recipe, ["train.blend=0.0", "train.epochs=1", "train.ema=null"])
    assert recipe.model.weights == "none"
    run = RunWeights(train(recipe, runs=tmp_path / "runs", device="cpu").run)
    cpu = torch.device("cpu")
    start = baselines.StartWeights(run).load(cpu).state_dict()
    own = run.load(cpu).encoder.state_dict()
    assert all(torch.equal(start[f"encoder.{k}"], v) for k, v in own.items() if v.is_floating_point())
