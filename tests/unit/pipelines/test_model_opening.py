"""Choosing a model by name."""

import pytest

from diffsplat.pipelines.model_opening import ModelChoice, OpeningOptions


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
    with pytest.raises(ValueError, match="'mini' takes text only, expected another such as sd15"):
        ModelChoice("mini", image=True).defaults()
