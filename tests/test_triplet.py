"""The triplet baseline: losses against naive loops and by hand, learning, and its place in the engine."""

import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import normalize

from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.errors import UsageError
from zssbir_cli.methods.table import build_method
from zssbir_cli.methods.triplet.config import TripletConfig
from zssbir_cli.methods.triplet.data import build as build_data
from zssbir_cli.methods.triplet.method import batch_triplet, cosine_distance, supervised_contrast
from zssbir_cli.recipe.loader import load_recipe, parse_recipe
from zssbir_cli.types import Modality

RECIPE = """
name: t
method: {name: triplet, contrast_weight: 1.0, preserve_weight: 0.5}
data: {size: 32}
model: {backbone: test_resnet, weights: none, projection: 16}
"""


def unit(n: int, d: int, seed: int) -> torch.Tensor:
    return normalize(
        torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1
    )


def test_triplet_equals_a_naive_loop() -> None:
    s, p, labels, margin = unit(9, 5, 0), unit(9, 5, 1), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 3]), 0.4
    total = 0.0
    for flip in (False, True):
        terms = []
        for i in range(9):
            for j in range(9):
                if labels[i] != labels[j]:
                    own = i if not flip else j
                    terms.append(max(0.0, margin + float(1 - s[own] @ p[own]) - float(1 - s[i] @ p[j])))
        total += sum(terms) / max(1, sum(t > 0 for t in terms))
    assert float(batch_triplet(s, p, labels, margin)) == pytest.approx(total, abs=1e-12)


def test_triplet_is_zero_when_all_is_well_and_without_negatives() -> None:
    eye = torch.eye(3)
    assert float(batch_triplet(eye, eye, torch.arange(3), 0.2)) == 0
    assert float(batch_triplet(unit(3, 4, 0), unit(3, 4, 1), torch.zeros(3, dtype=torch.int64), 0.2)) == 0


def test_contrast_by_hand_and_against_a_loop() -> None:
    eye = torch.eye(2, dtype=torch.float64).repeat(2, 1)
    wanted = math.log(1 + 2 * math.exp(-2.0))  # one positive at cosine 1, two negatives at 0
    assert float(supervised_contrast(eye, torch.tensor([0, 1, 0, 1]), 2.0)) == pytest.approx(wanted)
    z, labels = unit(7, 4, 2), torch.tensor([0, 0, 1, 1, 1, 2, 0])  # class 2 has a single row
    c, rows = 3.0 * z @ z.T, []
    for i in range(7):
        others = [j for j in range(7) if j != i]
        same = [j for j in others if labels[j] == labels[i]]
        if same:
            whole = torch.logsumexp(c[i, others], 0)
            rows.append(-sum(float(c[i, j] - whole) for j in same) / len(same))
    assert len(rows) == 6
    assert float(supervised_contrast(z, labels, 3.0)) == pytest.approx(sum(rows) / 6)


def test_gradients() -> None:
    labels = torch.tensor([0, 1, 1, 2])
    s, p = unit(4, 3, 4).requires_grad_(), unit(4, 3, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: batch_triplet(a, b, labels, 0.7), (s, p))
    twice = labels.repeat(2)
    assert torch.autograd.gradcheck(lambda a, b: supervised_contrast(torch.cat([a, b]), twice, 5.0), (s, p))
    assert torch.autograd.gradcheck(cosine_distance, (s, p))


def make_batch(seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    draw = lambda c: torch.randint(0, 256, (8, c, 32, 32), dtype=torch.uint8, generator=g)  # noqa: E731
    return {"sketch": draw(1), "photo": draw(3), "label": torch.arange(8) // 2}


def test_overfits_one_batch() -> None:
    torch.manual_seed(0)
    method = build_method(parse_recipe(RECIPE, "r", ["method.preserve_weight=0"])).train()
    batch = make_batch()
    optimizer = torch.optim.Adam(method.parameters(), 3e-3)
    first = 0.0
    for _ in range(80):
        loss = method(batch).loss
        first = first or float(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.2 * first
    method.eval()
    scores = method.embed(batch["sketch"], Modality.SKETCH) @ method.embed(batch["photo"], Modality.PHOTO).T
    assert (batch["label"][scores.argmax(1)] == batch["label"]).all()


def test_the_frozen_start_is_frozen_and_stays_out_of_retrieval() -> None:
    method = build_method(parse_recipe(RECIPE, "r")).train()
    out = method(make_batch())
    assert set(out.logs) == {"loss/triplet", "loss/contrast", "loss/preserve"}
    assert float(out.loss) == pytest.approx(sum(float(v) for v in out.logs.values()), rel=1e-6)
    out.loss.backward()
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    assert all(p.grad is None for n, p in method.named_parameters() if n.startswith("start."))
    assert not method.start.training
    assert not [k for k in method.retrieval_state() if k.startswith("start.")]


def test_a_loss_without_terms_and_a_prompt_without_a_class_are_refused() -> None:
    with pytest.raises(ValidationError, match="all terms are off"):
        TripletConfig(triplet_weight=0)
    with pytest.raises(ValidationError, match=r"no \{\}"):
        TripletConfig(text_weight=1, text_prompt="a photo")
    assert TripletConfig(triplet_weight=0, contrast_weight=1, text_prompt="ensemble").contrast_weight


def test_embeddings_are_unit_length_float32() -> None:
    method = build_method(parse_recipe(RECIPE, "r")).eval()
    z = method.embed(make_batch()["sketch"], Modality.SKETCH)
    assert z.shape == (8, 16)
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.norm(dim=1), torch.ones(8))


def test_trained_run_beats_chance_and_loads_back(tiny_recipe: Path, tmp_path: Path) -> None:
    from zssbir_cli.embedding.weights import load_run
    from zssbir_cli.recipe.loader import load_recipe
    from zssbir_cli.workflows.train import train

    recipe = load_recipe(tiny_recipe)
    outcome = train(recipe, runs=tmp_path / "runs", device="cpu")
    assert outcome.result.steps == 10
    loaded, method, info = load_run(outcome.run, torch.device("cpu"))
    settled = recipe.model.model_copy(update={"mean": loaded.model.mean, "std": loaded.model.std})
    assert loaded.model.mean is not None
    assert loaded == recipe.model_copy(update={"model": settled})
    assert info.step in (5, 10)
    again = train(recipe, runs=tmp_path / "runs2", device="cpu")
    _, twin, _ = load_run(again.run, torch.device("cpu"))
    for name, value in method.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name]), name


def test_views_of_another_size_are_trained_on_than_retrieval_uses(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe, ["method.train_size=24"])
    prepared = PreparedSet.open(recipe.data.root)
    data = build_data(recipe, prepared)
    row = tuple(int(v) for v in data.plan.batches(0)[0][0])
    item = data.items[(0, 0, row)]
    assert item["sketch"].shape == (1, 24, 24)
    assert item["photo"].shape == (3, 24, 24)
    method = build_method(recipe)
    for size in (24, recipe.data.size):
        assert method.embed(torch.zeros(2, 3, size, size, dtype=torch.uint8), Modality.PHOTO).shape[0] == 2


def test_a_transformer_refuses_views_of_another_size(tiny_recipe: Path) -> None:
    keys = ["method.train_size=48", "data.size=32", "model.backbone=vit_tiny_patch16_224"]
    with pytest.raises(UsageError, match=r"method\.train_size 48: vit_tiny_patch16_224 takes images of data"):
        build_method(load_recipe(tiny_recipe, keys))
