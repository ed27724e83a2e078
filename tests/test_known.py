"""Names of models and weights that are told without the libraries: exactly those that the libraries have."""

import json
import subprocess
import sys

import open_clip
import pytest
import timm

from zssbir_cli.errors import UsageError
from zssbir_cli.models.known import check_clip_name, clip_names, timm_names


def answers(names: list[str]) -> list[str]:
    """What `check_timm_name` says of each name where timm is not loaded; "" if nothing."""
    code = (
        "import json, sys\n"
        "from zssbir_cli.models.known import check_timm_name\n"
        "from zssbir_cli.errors import UsageError\n"
        "def said(name):\n"
        "    try:\n"
        "        check_timm_name(name)\n"
        "    except UsageError as error:\n"
        "        return str(error)\n"
        "    return ''\n"
        "answers = [said(name) for name in json.load(sys.stdin)]\n"
        "assert 'timm' not in sys.modules and 'torch' not in sys.modules\n"
        "print(json.dumps(answers))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(names), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_architectures_are_those_of_the_libraries() -> None:
    code = "from zssbir_cli.models.known import timm_names; print(*timm_names())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = done.stdout.split()
    assert {*names} >= {*timm.list_models(), "convnext_tiny_in22ft1k"}  # the last is an old name
    assert all(map(timm.is_model, names))
    assert not timm_names()  # timm is loaded here: it may know more by now
    assert clip_names() >= set(open_clip.list_models()) - {"tiny-clip"}  # which a fixture may have added


def test_no_weights_that_timm_has_are_refused() -> None:
    assert not list(filter(None, answers(timm.list_pretrained())))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("resnet5O.a1_in1k", "'resnet5O.a1_in1k' is not a timm model; did you mean resnet50"),
        (
            "mobilenetv2_100.ra_in1",
            "no weights 'ra_in1' of mobilenetv2_100; did you mean mobilenetv2_100.ra_in1k?",
        ),
        ("mobilenetv2_100.wrong_tag", "no weights 'wrong_tag' of mobilenetv2_100; there are ra_in1k"),
        ("vit_base_patch16_224.augreg2_in21k", "did you mean vit_base_patch16_224.augreg_in21k"),
    ],
)
def test_weights_that_timm_has_not_are_refused(name: str, wanted: str) -> None:
    assert wanted in answers([name])[0]


def test_no_tag_that_open_clip_has_is_refused() -> None:
    for model, tag in open_clip.list_pretrained():
        check_clip_name(model, tag)


def test_a_tag_that_open_clip_has_not_is_refused() -> None:
    with pytest.raises(
        UsageError, match="'opnai' is neither a file nor a tag of ViT-B-16; did you mean openai"
    ):
        check_clip_name("ViT-B-16", "opnai")
    check_clip_name("ViT-B-16", __file__)
