"""Choosing a model by name."""

import json
import shutil
from pathlib import Path

import pytest

from diffsplat.pipelines.model_opening import ModelChoice, OpeningOptions
from diffsplat.pretrained.model_folders import INDEX_FILE, find_model


@pytest.mark.parametrize(
    ("name", "choice", "label"),
    [
        ("mini", ModelChoice("mini"), "mini"),
        ("sd15", ModelChoice("sd15"), "sd15"),
        ("sd15:image", ModelChoice("sd15", image=True), "sd15:image"),
        ("sd15:depth", ModelChoice("sd15", controls=("depth",)), "sd15:depth"),
        (
            "sd15:image:depth",
            ModelChoice("sd15", image=True, controls=("depth",)),
            "sd15:image:depth",
        ),
        ("models/red", ModelChoice("models/red"), "red"),
    ],
)
def test_a_model_is_chosen_by_its_name(name: str, choice: ModelChoice, label: str):
    assert ModelChoice.parse(name, OpeningOptions()) == choice
    assert choice.label == label


def test_an_unknown_variant_is_refused():
    with pytest.raises(
        ValueError, match="'sd15:height' has an unknown variant, expected one of: image, depth"
    ):
        ModelChoice.parse("sd15:height", OpeningOptions())


def test_a_folder_of_text_alone_takes_no_image(tmp_path: Path):
    shutil.copytree(find_model("mini"), tmp_path / "mine")
    index = json.loads((tmp_path / "mine" / INDEX_FILE).read_text())
    for part in ("condition_encoder", "elevation_estimator", "image"):
        del index[part]
    (tmp_path / "mine" / INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(ValueError, match="takes text only, expected another such as mini or sd15"):
        ModelChoice(str(tmp_path / "mine"), image=True).defaults()
    assert ModelChoice("mini", image=True).defaults().projection
