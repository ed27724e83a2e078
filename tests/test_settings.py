"""Settings that mean nothing beside the others of a recipe are refused, or told where a file has them."""

from pathlib import Path

import pytest

from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.recipe.loader import find_recipe, load_recipe, shipped_recipes
from zssbir_cli.recipe.reference import all_keys
from zssbir_cli.recipe.settings import RULES, check_act, idle_keys
from zssbir_cli.workflows.recipes import choose_recipe

OF = {"TripletConfig": "triplet", "PuximConfig": "puxim", "AmaConfig": "ama"}

IDLE = [
    ("demo", "model.mean=[0.1, 0.1, 0.1]", "model.input: rgb"),
    ("ama-demo", "model.std=[0.1, 0.1, 0.1]", "model.input: rgb"),
    ("demo", "model={tune: none, lr_scale: 0.5}", "model.tune"),
    ("demo", "optim.momentum=0.5", "optim.name: sgd"),
    ("puxim", "optim.final_lr=1e-6", "optim.schedule: cosine"),
    ("demo", "method.margin=0.5", "method.triplet_weight"),
    ("demo", "method={contrast_weight: 0, name: triplet, scale: 3}", "contrast_weight or class_weight"),
    ("mobilenet", "method.text_prompt=a {}", "method.text_weight"),
    ("demo", "method={name: triplet, text_weight: 1, text_file: x}", "weights of the backbone"),
    ("puxim-nomask", "method.rule=random", "masks and a weight"),
    ("puxim-nomask", "method.vxl.blocks=3", "method.masks: cached or online"),
    ("puxim-demo", "method.vxl.weights=laion2b", "method.vxl.model"),
    ("puxim", "method={name: puxim, rule: threshold, mask_ratio: 0.5}", "rule: lowest or random"),
    ("puxim", "method.threshold=0.4", "method.rule: threshold"),
    ("puxim-demo", "method.margin=0.4", "weight of method.triplet"),
    ("puxim", "method.scale=3", "weight of method.contrast"),
    ("puxim-nomask", "method.target=norm", "weight of method.reconstruction"),
    ("puxim-nomask", "method.decoder_layers=2", "weight of method.interaction"),
    ("ama-mobilenet", "method.views.local_size=48", "method.views.locals"),
    ("ama", "method.views.drawing_scale=[0.5, 1]", "method.views.drawings"),
    (
        "ama",
        "method={name: ama, cluster: 0, alignment: 0, cluster_start: 3}",
        "method.cluster or method.alignm",
    ),
    ("ama", "method={name: ama, cluster: 0, cc_relative: true}", "a weight of method.cluster"),
    ("ama", "method={name: ama, guidance: 0, neighbours: 4}", "a weight of method.guidance"),
    ("ama", "method={name: ama, alignment: 0, alignment_temperature: 1}", "a weight of method.alignment"),
    ("ama-mobilenet", "method.head_weights=none", "a file in model.weights"),
]


@pytest.mark.parametrize(("recipe", "change", "needs"), IDLE)
def test_a_setting_that_means_nothing_is_refused(recipe: str, change: str, needs: str) -> None:
    with pytest.raises(UsageError, match="has no effect without") as caught:
        choose_recipe(recipe, settings=[change])
    assert needs in str(caught.value)
    assert str(caught.value).startswith(f"--set {change}: ")


def test_the_schedule_of_ama_must_fit_into_the_epochs() -> None:
    with pytest.raises(UsageError, match=r"method\.cluster has no effect without more epochs"):
        choose_recipe("ama", settings={"method.cluster": 0.7, "train.epochs": 10})
    with pytest.raises(UsageError, match=r"method\.guidance has no effect without more epochs"):
        choose_recipe("ama", settings={"method.guidance": 0.7, "train.epochs": 30})


def test_what_a_setting_switches_off_may_stay_in_the_file() -> None:
    """The ablations of docs/ama.md; and a default, which changes nothing, may be written."""
    off = ["method.cluster=0", "method.guidance=0", "method.alignment=0", "optim.momentum=0.9"]
    with pytest.raises(DataError, match="no prepared data set"):  # that is: no setting is refused
        choose_recipe("ama-demo", data="nowhere", settings=off)


def test_a_file_whose_keys_mean_nothing_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: x\nmethod: {name: triplet}\nmodel: {input: contours, std: [0.1, 0.1, 0.1]}\n")
    with pytest.raises(DataError):
        choose_recipe(file, data="nowhere")
    assert caplog.messages == [f"{file}: model.std has no effect without model.input: rgb"]
    assert not [p for p in shipped_recipes() if idle_keys(load_recipe(p))]


def test_the_rules_are_of_keys_that_there_are() -> None:
    known = {(k.section, k.path) for k in all_keys()}
    for config, keys, _, _ in RULES:
        for key in keys.split():
            section = f"method: {OF[config.__name__]}" if config is not object else key.split(".")[0]
            assert (section, key) in known


def test_settings_that_act_pass() -> None:
    recipe = load_recipe(find_recipe("ama"))
    check_act([("--set x", "optim.momentum=0.5"), ("--set y", "method.head_weights=none")], recipe)
