"""Recipes: every shipped one parses; every mistake is one line with file, line and key."""

from pathlib import Path

import pytest
import yaml
from cases import cases
from hypothesis import example, given
from hypothesis import strategies as st

from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.recipe.loader import (
    SHIPPED,
    dump_recipe,
    find_recipe,
    load_recipe,
    parse_recipe,
    shipped_recipes,
)
from zssbir_cli.recipe.reference import Key, all_keys, reference_markdown
from zssbir_cli.workflows.recipes import Settings, choose_recipe

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
        (GOOD + "optim:\n  lr: 1\n", ["r.yaml:7", "'optim' appears twice", "line 5"]),
        (GOOD + "trian:\n  epochs: 3\n", ["r.yaml:7", "'trian'", "did you mean 'train'"]),
        (GOOD + "lr: 3\n", ["r.yaml:7", "did you mean 'optim.lr'"]),
        (GOOD + "train:\n  epoch: 3\n", ["r.yaml:8", "train.epoch", "did you mean 'train.epochs'"]),
        (GOOD + "train:\n  epochs: 0\n", ["r.yaml:8", "train.epochs = 0", "expected whole number (>= 1)"]),
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


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (["optim.lr=1", "train.seed=1", "optim.lr = 2"], "--set optim.lr = 2: undoes --set optim.lr=1"),
        (["optim={lr: 1}", "optim.lr=2"], "--set optim.lr=2: undoes --set optim={lr: 1}"),
        (["optim.lr=1", "optim={lr: 2}"], "--set optim={lr: 2}: undoes --set optim.lr=1"),
        (["optim.lr=1", "optim={name: sgd}"], "--set optim={name: sgd}: undoes --set optim.lr=1"),
        (["train.compile=1", "train.compile=true"], "--set train.compile=true: undoes"),
        (
            {"model": {"tune": "all"}, "model.tune": "none"},
            '--set model.tune="none": undoes --set model={"tune"',
        ),
    ],
)
def test_settings_that_undo_each_other_are_refused(settings: Settings, wanted: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose_recipe("demo", settings=settings)
    assert str(caught.value).startswith(wanted)


def test_the_data_set_is_named_once() -> None:
    with pytest.raises(UsageError, match=r"^--data two: undoes --set data\.root=one, given before it"):
        choose_recipe("demo", data="two", settings=["data.root=one"])


def test_settings_that_go_together_are_taken() -> None:
    together = [
        "optim={lr: 0.5, name: sgd}",
        "optim.lr=0.5",
        "optim.momentum=0.3",
        "train.seed=1",
        "train.seed=1",
    ]
    with pytest.raises(DataError, match="no prepared data set"):  # that is: no setting is refused
        choose_recipe("demo", data="nowhere", settings=together)


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


@pytest.mark.parametrize(
    "key", [k for k in all_keys() if not k.path.endswith(".name")], ids=lambda k: k.section + k.path
)
def test_every_key_takes_values_of_its_own_type_only(key: Key) -> None:
    """`true` is no number, "3" is none, 1 is not `true`, no number is infinite; all of them with file and line."""
    method = key.section.removeprefix("method: ") if key.section.startswith("method") else "triplet"
    others: dict[str, list[object]] = {
        "whole number": [True, "3", 1.5, float("nan"), float("inf"), 10**30],
        "number": [True, "0.5", float("nan"), float("inf"), -float("inf")],
        "true / false": [0, 1, 1.0, "true", "yes", "no"],
        "text": [3, True, 1.5],
        "list": [[True], ["3"], [float("nan")], 3, True, [1, 1, float("inf")]],
    }  # fmt: skip
    wrong = next((values for kind, values in others.items() if key.kind.startswith(kind)), [3.25, True])
    assert wrong
    for value in wrong:
        tree: object = value
        for part in reversed(key.path.split(".")):
            tree = {part: tree}
        content = {"name": "x", "method": {}, **tree} if isinstance(tree, dict) else {}
        content["method"] = {"name": method, **content["method"]}
        text = yaml.safe_dump(content, sort_keys=False)
        line = next(
            i
            for i, t in enumerate(text.splitlines(), 1)
            if t.strip().startswith(key.path.rpartition(".")[2] + ":")
        )
        with pytest.raises(UsageError, match=rf"^r.yaml:{line}: {key.path} ") as caught:
            parse_recipe(text, "r.yaml")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("train.epochs=true", "train.epochs = true: expected whole number (>= 1)"),
        ("train.epochs=010", "train.epochs = '010': expected whole number"),  # not 8
        ("train.epochs=1:30", "train.epochs = '1:30': expected whole number"),  # not 90
        ("data.flip='true'", "data.flip = 'true': expected true / false; write it without quotes"),
        ("model.mean=[0.5, true, 0.5]", "model.mean = true: expected list of number"),
        ("model.std=[0, 1, 1]", "model.std = 0: expected list of number (> 0)"),
        ("method.margin=.inf", "method.margin = inf: expected number (>= 0)"),  # a key of PuXIM, too
        ("train.seed=99999999999999999999", "seed is above 9223372036854775807"),
    ],
)
def test_a_value_of_another_type_is_no_value(override: str, wanted: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_recipe(GOOD, "r.yaml", [override])
    assert str(caught.value).startswith(f"--set: {override.partition('=')[0]} = ")
    assert wanted in str(caught.value)


@cases(300)
@given(st.one_of(st.text(max_size=200), st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=8), lambda s: st.lists(s, max_size=3) | st.dictionaries(st.sampled_from(["name", "method", "optim", "lr", "x"]), s, max_size=4), max_leaves=12).map(yaml.safe_dump)))  # fmt: skip
@example("name: \x15")
def test_any_text_gives_a_recipe_or_a_clear_error(text: str) -> None:
    said = ""
    try:
        assert parse_recipe(text, "r.yaml").name
    except UsageError as error:  # anything else is a bug
        said = str(error)
    assert "\n" not in said


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


@pytest.mark.parametrize(
    ("text", "overrides", "wanted"),
    [
        ("name: x\nmethod: puxim\n", [], "r.yaml:2: method = 'puxim': write method: {name: puxim} "),
        ("name: x\nmethod: puxm\n", [], "write method: {name: puxim} "),
        ("name: x\nmethod:\n", [], "r.yaml:2: method = None: write method: {name: NAME} with one of triplet, "),
        ("name: x\nmethod: {nme: ama}\n", [], "r.yaml:2: method has no name: add name: triplet (there are triplet, "),
        (GOOD, ["method.name=pux"], "--set: method.name = 'pux': no such method; there are triplet, puxim, ama; did you "),
        (GOOD, ["method=ama"], "--set: method = 'ama': write method: {name: ama} "),
        (GOOD, ["optim.name=adamm"], "--set: optim.name = 'adamm': expected adam / adamw / sgd; did you mean 'adam"),
        (GOOD, ["train=3"], "--set: train = 3: expected a section of keys, such as train: {epochs: ...}"),
        (GOOD, ["model.options=3"], "--set: model.options = 3: expected a mapping of options"),
        (GOOD, ["model.options.checkpoint_path=x.pth"], "checkpoint_path is not an option here; set model.weights"),
        (GOOD, ["model.options.img_size=64"], "img_size is not an option here; set data.size"),
        (GOOD, ["model.options.a=[1]"], "--set: model.options.a = [1]: expected a number, a text, true or false"),
        (GOOD, ["model.tune=some"], "--set: model.tune = 'some': expected text (Which weights of the backbone"),
        (GOOD, ["data.root=p\udce9"], r"--set data.root=p\xe9: a recipe is UTF-8 text"),
        (
            "name: x\ntrain: {epochs: two}\n", ["optim.lr=fast", "data.size=-1"],
            "r.yaml:2: train.epochs = 'two': expected whole number (>= 1); and 1 more; `zssbir recipes",
        ),
        ("name: x\ntrian: 1\nlr: 2\noptm: 3\ndta: 4\n", [], "; and 2 more; `zssbir recipes --keys` lists all keys"),
    ],
)  # fmt: skip
def test_each_mistake_is_told_in_words_of_the_recipe(text: str, overrides: list[str], wanted: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_recipe(text, "r.yaml", overrides)
    message = str(caught.value)
    assert wanted in message, message
    assert "nput" not in message


def test_keys_of_a_method_that_do_not_go_together_are_told_not_the_name() -> None:
    text = (SHIPPED / "puxim-demo.yaml").read_text("utf-8")
    with pytest.raises(UsageError) as caught:
        parse_recipe(text, "puxim-demo.yaml", ["method.masks=none"])
    assert "method: masks: none leaves nothing to reconstruct: set reconstruction to 0" in str(caught.value)
    assert "no such method" not in str(caught.value)


def test_another_method_in_a_recipe_is_one_sentence() -> None:
    text = (SHIPPED / "puxim.yaml").read_text("utf-8")
    with pytest.raises(
        UsageError, match=r"^--set: method.name = 'triplet', but .* and \d+ more are keys of puxim: take a"
    ):
        parse_recipe(text, "puxim.yaml", ["method.name=triplet"])
    with pytest.raises(
        UsageError, match=r"^r.yaml:3: method.name = 'ama', but margin, scale are keys of triplet"
    ):
        parse_recipe("name: x\nmethod:\n  name: ama\n  margin: 0.2\n  scale: 2\n", "r.yaml")


def test_recipes_are_suggested_by_nearness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for name in ("kitchen.yaml", "mine/garden.yml"):
        (tmp_path / name).write_text(GOOD)
    for wrong, wanted in (
        ("kitchn", "did you mean kitchen.yaml"), ("mine/gardn.yaml", "did you mean mine/garden.yml"),
        ("demo.yml", "did you mean demo.yaml"), ("qqqq", "`zssbir recipes` lists those"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=wanted):
            find_recipe(wrong)
