"""Recipes: every shipped one parses; every mistake is one line with file, line and key."""

from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from zssbir_cli.errors import UsageError
from zssbir_cli.recipe.loader import dump_recipe, find_recipe, load_recipe, parse_recipe, shipped_recipes
from zssbir_cli.recipe.reference import all_keys, reference_markdown

GOOD = "name: x\nmethod:\n  name: triplet\n  margin: 0.3\noptim:\n  lr: 1e-4\n"


def test_shipped_recipes_parse_and_round_trip() -> None:
    paths = shipped_recipes()
    assert {"demo.yaml", "puxim.yaml", "ama.yaml"} <= {p.name for p in paths}
    for path in paths:
        recipe = load_recipe(path)
        assert recipe.name == path.stem
        assert recipe.description, path
        assert parse_recipe(dump_recipe(recipe), "again") == recipe


def test_yaml_means_what_one_reads() -> None:
    recipe = parse_recipe(GOOD + "description: no\n", "r")
    assert recipe.optim.lr == 1e-4
    assert recipe.description == "no"
    assert parse_recipe(GOOD, "r", ["train.ema=0.99", "model.options={pad_type: same}"]).train.ema == 0.99


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (GOOD + "optim:\n  lr: 1\n", ["r.yaml:7", "'optim' stands twice", "line 5"]),
        (GOOD + "trian:\n  epochs: 3\n", ["r.yaml:7", "'trian'", "did you mean 'train'"]),
        (GOOD + "lr: 3\n", ["r.yaml:7", "did you mean 'optim.lr'"]),
        (GOOD + "train:\n  epoch: 3\n", ["r.yaml:8", "train.epoch", "did you mean 'train.epochs'"]),
        (GOOD + "train:\n  epochs: 0\n", ["r.yaml:8", "train.epochs = 0", "greater than or equal to 1"]),
        (GOOD.replace("triplet", "tripplet"), ["r.yaml", "method", "tripplet"]),
        (GOOD.replace("margin", "margn"), ["r.yaml:4", "method.margn", "method.margin"]),
        ("method: {name: triplet}\n", ["name", "missing"]),
        ("[1, 2]", ["mapping"]),
        ("", ["mapping"]),
        ("name: [1\n", ["r.yaml:", "not valid YAML"]),
        ("name: x\nmethod: &a {name: triplet, b: *a}\n", ["r.yaml"]),
    ],
)
def test_mistakes_are_one_clear_line(text: str, wanted: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse_recipe(text, "r.yaml")
    message = str(caught.value)
    assert "\n" not in message.strip()
    for part in wanted:
        assert part in message, message


@pytest.mark.parametrize("override", ["lr", "=1", "optim.lr=[", "name.x=1", "optim..lr=1"])
def test_bad_overrides_are_named(override: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        parse_recipe(GOOD, "r", [override])


def test_override_error_points_to_the_command_line() -> None:
    with pytest.raises(UsageError, match=r"^--set: optim.lr = -1"):
        parse_recipe(GOOD, "r", ["optim.lr=-1"])


def test_recipes_are_found_here_then_in_recipes_then_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe("demo").name == "demo.yaml"
    Path("recipes").mkdir()
    Path("recipes/demo.yaml").write_text(GOOD)
    assert find_recipe("demo.yaml") == Path("recipes/demo.yaml")
    Path("demo.yaml").write_text(GOOD)
    assert find_recipe("demo") == Path("demo.yaml")
    with pytest.raises(UsageError, match=r"did you mean puxim.yaml"):
        find_recipe("puxin")


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=200), st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=8), lambda s: st.lists(s, max_size=3) | st.dictionaries(st.sampled_from(["name", "method", "optim", "lr", "x"]), s, max_size=4), max_leaves=12).map(yaml.safe_dump)))  # fmt: skip
def test_any_text_gives_a_recipe_or_a_clear_error(text: str) -> None:
    with suppress(UsageError):  # anything else is a bug
        assert parse_recipe(text, "r.yaml").name


def test_every_key_is_explained_in_the_reference() -> None:
    keys = all_keys()
    assert not [k.path for k in keys if not k.meaning and k.path != "method.name"]
    assert len({k.path for k in keys if not k.path.startswith("method.")}) == len(
        [k for k in keys if not k.path.startswith("method.")]
    )
    committed = Path(__file__).parents[1] / "docs" / "recipes.md"
    assert committed.read_text("utf-8").strip() == reference_markdown().strip(), (
        "docs/recipes.md is out of date: run `zssbir recipes --keys --markdown > docs/recipes.md`"
    )
