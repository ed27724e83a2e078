"""A run knows what it learnt from, which checkpoint is which, and how it is named: real runs on tiny sets."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY
from demo_helpers import draw_split
from typer.testing import CliRunner

from zssbir_cli.cli.app import app
from zssbir_cli.compute import precision as precisions
from zssbir_cli.data.manifest import Leak, read_manifest, write_manifest
from zssbir_cli.embedding import weights as embedding_weights
from zssbir_cli.embedding.own import data_of
from zssbir_cli.embedding.weights import RunWeights, load_run, open_checkpoint
from zssbir_cli.engine import checkpoint
from zssbir_cli.engine.meta import meta_text, read_meta
from zssbir_cli.engine.runs import find_checkpoint, latest_run
from zssbir_cli.errors import CheckpointError, DataError, UsageError, ZssbirError
from zssbir_cli.recipe.loader import load_recipe
from zssbir_cli.types import Role
from zssbir_cli.workflows.train import train

CPU = torch.device("cpu")


def evaluate(*arguments: str) -> dict:
    result = CliRunner().invoke(app, ["eval", "--json", "--no-report", "--device", "cpu", *arguments])
    if isinstance(result.exception, ZssbirError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def roles(root: Path) -> dict[Role, list[str]]:
    manifest = read_manifest(root)
    return {role: [c.name for c in manifest.classes_of(role)] for role in Role}


def forget(run: Path) -> None:
    """Make a run as an older version left it: no classes, no leaks."""
    for meta in run.glob("checkpoints/*/meta.json"):
        content = json.loads(meta.read_text())
        del content["seal"]
        content["data"] = {k: content["data"][k] for k in ("name", "identity")}
        meta.write_text(json.dumps(content))
    record = json.loads((run / "run.json").read_text())
    record["data"] = {k: record["data"][k] for k in ("root", "name", "identity")}
    (run / "run.json").write_text(json.dumps(record))


def test_checkpoints_and_run_json_keep_classes_split_and_preprocessing(place: Path) -> None:
    run = latest_run()
    manifest, expected = read_manifest(place / "data/pics"), roles(place / "data/pics")
    record = json.loads((run / "run.json").read_text())
    for name in ("best", "last"):
        meta = json.loads((run / "checkpoints" / name / "meta.json").read_text())
        assert meta["data"]["classes"] == {str(r): names for r, names in expected.items()}
        assert (meta["data"]["identity"], meta["data"]["split"]) == (manifest.identity, manifest.split)
        assert meta["recipe"]["model"]["mean"] == record["preprocessing"]["mean"]
        assert len(meta["recipe"]["model"]["std"]) == 3
    assert record["data"]["classes"]["seen"] == expected[Role.SEEN]
    assert record["preprocessing"]["size"] == 32


def test_another_split_under_the_same_path_excludes_what_the_run_was_trained_on(place: Path) -> None:
    """Prepared again with other unseen classes: what was trained on or selected by is never called unseen."""
    before = roles(place / "data/pics")
    seen, val, fresh = before[Role.SEEN][0], before[Role.VAL][0], before[Role.UNSEEN][0]
    shutil.rmtree("data/pics")
    draw_split(Path("data/pics"), unseen=[seen, val, fresh])
    found = evaluate()
    assert [row["class"] for row in found["per_class"]] == [fresh]
    assert (found["cross"], found["subset"]) == (True, True)
    assert sorted(set(found["excluded"]) & {seen, val}) == sorted([seen, val])
    assert any("not the data set the run was trained on" in n for n in found["notes"])
    assert found["published"] == []


def test_every_reader_says_that_the_data_set_is_another(place: Path) -> None:
    """embed, search, draw and mask-viz too, with the classes of it that the run has learnt; of its own set, nothing."""
    from PIL import Image, ImageDraw

    from zssbir_cli.embedding.gallery import open_gallery
    from zssbir_cli.workflows.embed import embed
    from zssbir_cli.workflows.mask_viz import MaskRequest, mask_viz
    from zssbir_cli.workflows.search import search_sketches

    sketch = Image.new("L", (60, 60), 255)
    ImageDraw.Draw(sketch).line((5, 5, 50, 50), fill=0, width=3)
    sketch.save("s.png")
    data = Path("data/pics")
    assert embed().note == search_sketches(Path("s.png"), data).note == ""
    before = roles(data)
    seen, fresh = before[Role.SEEN][0], before[Role.UNSEEN][0]
    shutil.rmtree(data)
    draw_split(data, unseen=[seen, fresh])
    words = ("not the data set the run was trained on", "the run was trained on or selected by ", seen)
    told = (
        embed().note, search_sketches(Path("s.png"), data).note, open_gallery(data, torch.device("cpu")).note,
        mask_viz(MaskRequest(count=1)).heading,
    )  # fmt: skip
    for text in told:
        assert all(word in text for word in words), text


def test_when_nothing_unseen_is_left_the_classes_are_named(place: Path) -> None:
    seen = roles(place / "data/pics")[Role.SEEN][:2]
    shutil.rmtree("data/pics")
    draw_split(Path("data/pics"), unseen=seen)
    with pytest.raises(DataError, match=f"no class of data/pics remains.*{seen[0]}.*identity"):
        evaluate()


def test_another_set_by_data_excludes_by_the_run_not_by_what_lies_at_its_root(place: Path) -> None:
    before = roles(place / "data/pics")
    seen, fresh = before[Role.SEEN][0], before[Role.UNSEEN][0]
    other = draw_split(Path("data/other"), seed=4, unseen=[seen, fresh])
    shutil.rmtree("data/pics")
    draw_split(Path("data/pics"), unseen=before[Role.SEEN][:2])
    assert [r["class"] for r in evaluate("--data", str(other))["per_class"]] == [fresh]


def test_the_same_set_elsewhere_is_the_runs_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate()
    monkeypatch.chdir(place.parent)
    assert evaluate("--run", "work/runs/latest")["measures"] == first["measures"]
    moved = place.parent / "moved"
    moved.mkdir()
    (place / "runs").rename(moved / "runs")
    (place / "data" / "pics").rename(moved / "renamed")
    monkeypatch.chdir(moved)
    again = evaluate("--data", "renamed")
    assert (again["cross"], again["subset"], again["measures"]) == (False, False, first["measures"])


def test_a_run_that_is_too_old_to_know_its_classes_refuses_until_it_can(place: Path) -> None:
    run = latest_run()
    forget(run)
    before = roles(place / "data/pics")
    other = draw_split(Path("data/other"), seed=4, unseen=[before[Role.SEEN][0], before[Role.UNSEEN][0]])
    Path("data/pics").rename("own")
    with pytest.raises(DataError, match=r"older zssbir.*--data FOLDER") as caught:
        evaluate("--data", str(other))
    assert "\n" not in str(caught.value)
    assert evaluate("--data", "own")["cross"] is False
    assert [r["class"] for r in evaluate("--data", str(other))["per_class"]] == [before[Role.UNSEEN][0]]


def test_a_run_carries_its_own_leaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw_split(Path("data/pics"))
    leak = Leak(kind="image", what="photo/a.jpg", where="train, and test as b.jpg")
    write_manifest(Path("data/pics"), read_manifest(Path("data/pics")).model_copy(update={"leaks": (leak,)}))
    Path("tiny.yaml").write_text(TINY.replace("DATA", "data/pics").replace("epochs: 2", "epochs: 1"))
    train(load_recipe(Path("tiny.yaml")), device="cpu")
    fresh = roles(Path("data/pics"))[Role.UNSEEN][:2]
    other = draw_split(Path("other"), seed=4, unseen=fresh)
    found = evaluate("--data", str(other))
    assert any("trained on a set with 1 leaks" in w for w in found["warnings"])
    assert found["leaks"] == ["image photo/a.jpg: train, and test as b.jpg"]


def test_resume_remembers_a_moved_data_set(place: Path) -> None:
    Path("data/pics").rename("moved")
    run = latest_run()
    result = CliRunner().invoke(
        app, ["train", "--resume", run.name, "--set", "data.root=moved", "--device", "cpu"]
    )
    assert result.exit_code == 0, result.output
    assert load_recipe(run / "recipe.yaml").data.root == "moved"
    assert evaluate()["cross"] is False


def test_auto_resumes_in_the_precision_that_a_run_began_with(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fast, began in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(precisions, "cpu_has_fast_bf16", lambda fast=fast: fast)
        run = train("tiny.yaml", settings=["train.precision=auto", "train.epochs=1"], device="cpu").run
        monkeypatch.setattr(precisions, "cpu_has_fast_bf16", lambda fast=fast: not fast)
        checked = CliRunner().invoke(app, ["train", "--check", "--resume", str(run), "--device", "cpu"])
        assert f"steps in {began} on" in checked.output
        train(resume=run, device="cpu")
        assert checkpoint.inspect(run / "checkpoints" / "last").precision == began
        assert json.loads((run / "run.json").read_text())["resumed"][-1]["precision"] == began


def test_best_that_a_cut_write_left_is_found_and_named(place: Path) -> None:
    folder = latest_run() / "checkpoints"
    (folder / "best").rename(folder / "best.previous")
    found = evaluate()
    assert found["which"] == "best.previous"
    assert any("best.previous is used" in n for n in found["notes"])
    shutil.rmtree(folder / "best.previous")
    with pytest.raises(CheckpointError, match="best was lost: give --checkpoint last"):
        evaluate()
    assert evaluate("--checkpoint", "last")["which"] == "last"


def test_a_run_that_has_only_last_says_so(place: Path) -> None:
    run = latest_run()
    shutil.rmtree(run / "checkpoints" / "best")
    meta = run / "checkpoints" / "last" / "meta.json"
    meta.write_text(meta_text(json.loads(meta.read_text()) | {"metrics": {}, "best_step": -1}))
    found = evaluate()
    assert found["which"] == "last"
    assert any("no `best` yet" in n for n in found["notes"])
    with pytest.raises(CheckpointError, match="epoch-0007 does not exist; give --checkpoint last"):
        find_checkpoint(run, "epoch-7")
    with pytest.raises(CheckpointError, match="epoch-² does not exist"):
        find_checkpoint(run, "epoch-²")


def test_the_checkpoints_recipe_counts_not_an_edited_file(place: Path) -> None:
    run = latest_run()
    file = run / "recipe.yaml"
    file.write_text(file.read_text().replace("size: 32", "size: 16"))
    recipe, info = open_checkpoint(run)
    assert recipe.data.size == 32
    assert "data.size: 32 -> 16" in info.note
    file.write_text("name: [")
    assert open_checkpoint(run)[0].data.size == 32
    assert evaluate()["recipe"] == "tiny"


def test_mean_and_std_are_those_of_training(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another default of timm changes no run."""
    import timm

    run = latest_run()
    before = load_run(run, CPU)[1].encoder.normalisation  # type: ignore[union-attr]
    real = timm.create_model

    def other(*args: object, **kwargs: object) -> torch.nn.Module:
        model = real(*args, **kwargs)  # type: ignore[arg-type]
        model.pretrained_cfg = {**model.pretrained_cfg, "mean": (0.1, 0.1, 0.1), "std": (0.9, 0.9, 0.9)}
        return model

    monkeypatch.setattr(timm, "create_model", other)
    assert load_run(run, CPU)[1].encoder.normalisation == before  # type: ignore[union-attr]


def test_damaged_text_files_of_a_run_are_survived(place: Path) -> None:
    run = latest_run()
    (run / "run.json").write_bytes(b'{"data": {"na')
    (run / "metrics.jsonl").write_bytes(b"\xff\xfe\x00 not json")
    (run / "recipe.yaml").write_bytes(b"name: \xff")
    assert evaluate()["cross"] is False
    result = CliRunner().invoke(app, ["train", "--resume", str(run), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert json.loads((run / "run.json").read_text())["data"]["classes"]["seen"]
    assert load_recipe(run / "recipe.yaml").name == "tiny"
    assert CliRunner().invoke(app, ["runs"]).exit_code == 0


def test_results_do_not_overwrite_one_another(place: Path) -> None:
    run, names = latest_run(), roles(place / "data/pics")[Role.UNSEEN]
    evaluate()
    evaluate("--checkpoint", "last")
    evaluate("--per-class", "2", "--seed", "3")
    evaluate("-k", "5")
    evaluate("--classes", ",".join(names[:2]))
    evaluate("--classes", ",".join(names[2:4]))
    evaluate("--classes", ",".join(names[:2]))
    files = sorted(p.name for p in (run / "eval").glob("*.json"))
    assert {"zs.json", "zs-last.json", "zs-seed3-subset.json", "zs-k5.json", "zs-subset.json"} < set(files)
    assert len(files) == 6
    assert json.loads((run / "eval" / "zs.json").read_text())["which"] == "best"


def test_classes_of_another_role_are_said(place: Path) -> None:
    known = roles(place / "data/pics")
    seen, unseen = known[Role.SEEN][0], known[Role.UNSEEN][0]
    with pytest.raises(DataError, match=rf"{seen} \(seen\): none of these takes part in --split zs"):
        evaluate("--classes", seen)
    found = evaluate("--classes", f"{seen},{unseen}")
    assert any(f"not part of --split zs: {seen} (seen)" in n for n in found["notes"])
    assert {
        "only 1 class",
        "every photo of the gallery is relevant to every query: any ranking scores the same",
    } <= set(found["notes"])


def test_options_that_would_do_nothing_are_refused(place: Path) -> None:
    for mode in (
        ["--embeddings", "e.npz", "--split", "val"],
        ["--compare", "a", "b", "--checkpoint", "last"],
    ):
        with pytest.raises(UsageError, match="has no effect with"):
            evaluate(*mode)


def test_a_checkpoint_is_named_once(place: Path) -> None:
    named = str(latest_run() / "checkpoints" / "last")
    with pytest.raises(UsageError, match=r"--checkpoint best has no effect with --run .*last, which names a"):
        evaluate("--run", named, "--checkpoint", "best")
    assert evaluate("--run", named, "--checkpoint", "last")["which"] == "last"


def test_a_read_only_run_can_be_evaluated_elsewhere(place: Path) -> None:
    run = latest_run()
    forget(run)
    weights = RunWeights(run)
    (run / "run.json").unlink()
    (run / "run.json").mkdir()  # cannot be written, whoever runs this
    assert data_of(weights).own


def test_a_checkpoint_that_is_damaged_is_named(place: Path) -> None:
    file = latest_run() / "checkpoints" / "best" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=r"best: model\.safetensors is damaged"):
        load_run(latest_run(), CPU)
    assert checkpoint.inspect(latest_run() / "checkpoints" / "last").which == "last"


def test_weights_that_training_replaces_while_they_are_loaded(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the check of a checkpoint and its reading the network is built; what is read then must be what was checked."""
    run = latest_run()
    best, weights, build = run / "checkpoints" / "best", RunWeights(run), embedding_weights.build_method
    facts = {k: v for k, v in read_meta(best / "meta.json").items() if k != "sha256"}
    other = {k: v + 1 for k, v in checkpoint.read_weights(best).items()}

    def built_while_training(*args: object, **options: object) -> object:
        checkpoint.save(best, other, None, facts)
        return build(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(embedding_weights, "build_method", built_while_training)
    with pytest.raises(CheckpointError, match="training has replaced these weights"):
        weights.load(CPU)
