"""Spherical k-means: its optimum on data with an answer, its guarantees, its odd inputs."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from cases import cases
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zssbir_cli.errors import DataError
from zssbir_cli.retrieval import kmeans as module
from zssbir_cli.retrieval.kmeans import assign, kmeans, seeds


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(clusters: int, rows: int, dim: int = 32, noise: float = 0.2) -> tuple[Tensor, Tensor]:
    g = seeded(1)
    centers = F.normalize(torch.randn(clusters, dim, generator=g), dim=1)
    labels = torch.arange(rows) % clusters
    return centers[labels] + noise * torch.randn(rows, dim, generator=g) / dim**0.5, labels


def test_finds_separated_clusters():
    x, labels = blobs(12, 600, noise=0.05)
    result = kmeans(x, 12, generator=seeded())
    pairs = {(int(a), int(b)) for a, b in zip(labels, result.labels, strict=True)}
    assert len(pairs) == 12
    assert result.sizes.tolist() == [50] * 12
    torch.testing.assert_close(result.centroids.norm(dim=1), torch.ones(12))


def naive(x: Tensor, centroids: Tensor, passes: int) -> tuple[Tensor, float]:
    """Lloyd on the sphere, row by row."""
    x = F.normalize(x, dim=1)
    for n in range(passes):
        labels = torch.tensor([int(torch.stack([row @ c for c in centroids]).argmax()) for row in x])
        if n + 1 < passes:
            centroids = F.normalize(
                torch.stack([x[labels == k].sum(0) for k in range(len(centroids))]), dim=1
            )
    return labels, float(sum(row @ centroids[k] for row, k in zip(x, labels, strict=True)))


def test_equals_naive_lloyd():
    x, _ = blobs(7, 90, dim=8, noise=1.5)
    initial = F.normalize(x[:5], dim=1)
    labels, similarity = naive(x, initial, 6)
    result = kmeans(x, 5, generator=seeded(), iterations=6, tolerance=-1.0, initial=initial)
    assert result.iterations == 6
    assert torch.equal(result.labels, labels)
    assert result.similarity == pytest.approx(similarity, rel=1e-5)
    unit = F.normalize(x, dim=1)
    assert result.objective == pytest.approx(
        float((unit - result.centroids[labels]).square().sum()), rel=1e-4
    )


def narrow(clusters: int, rows: int, spread: float, dim: int = 64) -> tuple[Tensor, Tensor]:
    """Clusters in a narrow cone: `spread` is the distance of a cluster from the common direction."""
    g = seeded(1)
    common, centers = (F.normalize(torch.randn(n, dim, generator=g), dim=1) for n in (1, clusters))
    labels = torch.arange(rows) % clusters
    around = 0.3 * torch.randn(rows, dim, generator=g) / dim**0.5
    return F.normalize(common + spread * (centers[labels] + around), dim=1), labels


@pytest.mark.parametrize(("spread", "cosine"), [(0.045, 0.998), (0.004, 0.99998)])
def test_clusters_are_found_where_all_cosines_are_close(spread, cosine):
    """As in the features of an untrained network."""
    x, labels = narrow(20, 1000, spread)
    assert float((x @ x.T).mean()) == pytest.approx(cosine, abs=0.3 * (1 - cosine))
    result = kmeans(x, 20, generator=seeded())
    assert result.empty == 0
    purity = sum(int(torch.bincount(labels[result.labels == c]).max()) for c in range(20)) / len(x)
    assert purity >= 0.9  # 18 of 20, whichever generator drew the start
    exact = (x.double() - result.centroids.double()[result.labels]).square().sum()
    assert result.objective == pytest.approx(float(exact), rel=0.01)


def test_every_row_is_with_its_nearest_centroid():
    x, _ = narrow(20, 1000, 0.045)
    result = kmeans(x, 20, generator=seeded(), iterations=3)
    cosines = x.double() @ result.centroids.double().T
    own = cosines.gather(1, result.labels[:, None])[:, 0]
    assert float((cosines.max(1).values - own).max()) < 1e-7


def test_assign_measures_squared_distances():
    rows, centroids = (torch.randn(n, 96, generator=seeded(n)) for n in (700, 30))
    labels, distances = assign(rows, rows.square().sum(1), centroids)
    exact = torch.cdist(rows.double(), centroids.double()).square()
    assert torch.equal(labels, exact.argmin(1))
    torch.testing.assert_close(distances.double(), exact.amin(1), rtol=1e-5, atol=1e-5)


def test_a_worse_pass_is_not_returned(monkeypatch):
    """From the fourth pass on the means are spoilt; the result is that of the third."""
    x, _ = blobs(30, 900, noise=2.0)
    wanted = kmeans(x, 10, generator=seeded(3), iterations=3, tolerance=-1.0)
    means, calls = module._means, []

    def spoilt(*arguments):
        calls.append(None)
        found, empty = means(*arguments)
        return (found if len(calls) < 3 else found + torch.randn(found.shape, generator=seeded())), empty

    monkeypatch.setattr(module, "_means", spoilt)
    for tolerance, passes in ((-1.0, 6), (3e-3, 4)):
        calls.clear()
        result = kmeans(x, 10, generator=seeded(3), iterations=6, tolerance=tolerance)
        assert result.iterations == passes
        assert torch.equal(result.labels, wanted.labels)
        assert result.similarity == wanted.similarity


def test_each_pass_improves_and_it_stops_by_itself():
    x, _ = blobs(30, 900, noise=2.0)
    values = [kmeans(x, 10, generator=seeded(3), iterations=n, tolerance=-1.0).objective for n in range(1, 9)]
    assert all(b <= a + 1e-3 for a, b in pairwise(values))
    stopped = kmeans(x, 10, generator=seeded(3), iterations=100)
    assert stopped.iterations < 50
    assert stopped.objective <= values[3] * 1.01


def test_same_seed_same_result_and_blocks_do_not_matter(monkeypatch):
    x, _ = blobs(9, 500, noise=1.0)
    first = kmeans(x, 9, generator=seeded(5))
    again = kmeans(x, 9, generator=seeded(5))
    assert torch.equal(first.centroids, again.centroids)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    monkeypatch.setitem(module._SCORES, "cpu", 70)
    blocked = kmeans(x, 9, generator=seeded(5))
    monkeypatch.undo()
    assert torch.equal(torch.get_rng_state(), state)  # randomness comes from the generator alone
    assert torch.equal(blocked.labels, kmeans(x, 9, generator=seeded(5)).labels)


def test_an_empty_cluster_gets_the_worst_fitting_row():
    x, _ = blobs(4, 80, noise=0.1)
    lost = -F.normalize(x.mean(0), dim=0)
    initial = torch.cat([F.normalize(x[:3], dim=1), lost[None]])
    for passes in (1, 20):  # a single pass has no chance to repair anything on the way
        taken = kmeans(x, 4, generator=seeded(), initial=initial, iterations=passes)
        assert taken.repaired >= 1
        assert int(taken.sizes.min()) >= 1
        assert len(taken.labels.unique()) == 4


def test_repeated_rows_do_not_break_it():
    x = F.normalize(torch.randn(3, 8, generator=seeded()), dim=1).repeat(20, 1)
    result = kmeans(x, 5, generator=seeded())
    assert result.objective == pytest.approx(0.0, abs=1e-4)
    assert bool(torch.isfinite(result.centroids).all())
    assert result.empty in (1, 2)  # rounding may tell a repeated row from itself


def test_k_equal_to_rows_and_k_one():
    x = torch.randn(12, 6, generator=seeded())
    assert kmeans(x, 12, generator=seeded()).objective == pytest.approx(0.0, abs=1e-4)
    one = kmeans(x, 1, generator=seeded())
    torch.testing.assert_close(one.centroids[0], F.normalize(F.normalize(x, dim=1).sum(0), dim=0))


def test_seeds_are_distinct_and_spread():
    x, labels = blobs(8, 400, noise=0.05)
    unit = F.normalize(x, dim=1)
    chosen = unit[seeds(unit, 8, seeded(2))]
    means = F.normalize(torch.stack([x[labels == k].mean(0) for k in range(8)]), dim=1)
    nearest = (chosen @ means.T).argmax(1)
    assert len(nearest.unique()) >= 6  # uniform seeding finds 5.3 of 8 on average
    x, _ = blobs(50, 300, noise=1.0)
    unit = F.normalize(x, dim=1)
    chosen = unit[seeds(unit, 50, seeded(2))]
    assert len(chosen.unique(dim=0)) == 50


def test_a_warm_start_takes_fewer_passes():
    x, _ = blobs(40, 2000, noise=2.0)
    cold = kmeans(x, 20, generator=seeded(), iterations=50)
    warm = kmeans(x, 20, generator=seeded(), iterations=50, initial=cold.centroids)
    assert warm.iterations < cold.iterations
    assert warm.objective <= cold.objective * 1.0001


def test_the_sums_of_gpus_equal_those_of_cpus():
    x, _ = blobs(5, 60)
    labels = torch.arange(60) % 4
    torch.testing.assert_close(
        module._one_hot_sums(x, labels, 4), torch.zeros(4, 32).index_add_(0, labels, x)
    )


@pytest.mark.parametrize(
    ("x", "k", "message"),
    [
        (torch.ones(3, 4), 5, "need at least 5 rows"),
        (torch.ones(3), 1, "need at least"),
        (torch.tensor([[1.0, 0.0], [0.0, 0.0]]), 1, "first is row 1"),
        (torch.tensor([[float("nan"), 0.0], [1.0, 0.0]]), 1, "first is row 0"),
    ],
)
def test_unusable_input_is_one_clear_error(x, k, message):
    with pytest.raises(DataError, match=message):
        kmeans(x, k, generator=seeded())


@cases(30)
@given(st.integers(1, 40), st.integers(1, 6), st.data())
def test_any_size_gives_complete_labels(rows, dim, data):
    k = data.draw(st.integers(1, rows))
    x = torch.randn(rows, dim, generator=seeded(rows * 7 + dim))
    result = kmeans(x, k, generator=seeded(k), iterations=4)
    assert result.labels.shape == (rows,)
    assert 0 <= int(result.labels.min()) <= int(result.labels.max()) < k
    assert int(result.sizes.sum()) == rows
    assert bool(torch.isfinite(result.centroids).all())
