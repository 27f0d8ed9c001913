"""The one description of a generation, and its faces: Python, the command line and the API."""

from dataclasses import fields, replace

import pytest
import tyro

from diffsplat.cli.generate import GenerateArguments
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.generation_options import OF_SEVERAL_OBJECTS, Generation, ResolvedGeneration
from diffsplat.pretrained.model_folders import SamplingDefaults

DEFAULTS = SamplingDefaults(steps=7, guidance=3.5, elevation_deg=12.0)
OTHER = {
    "prompts": ("a chair", "a taxi"),
    "negative_prompt": "blue",
    "negative_prompts": ("blue", "red"),
    "seed": 5,
    "count": 2,
    "seeds": (7, 8, 9, 6),
    "steps": 3,
    "timesteps": (900.0, 500.0, 100.0),
    "sigmas": (),
    "sampler": "euler",
    "eta": 0.5,
    "guidance": 2.0,
    "guidance_rescale": 0.5,
    "least_guidance": 1.5,
    "elevation": -20.0,
    "clip_skip": 1,
    "noise_device": "cuda",
    "control_scale": 0.5,
    "guess_mode": True,
    "lora_scales": {"red": 0.5},
    "unshifted": True,
    "unprojected": True,
    "literal": True,
    "original_rotations": True,
}


def test_every_option_has_another_value_here():
    assert list(OTHER) == [entry.name for entry in fields(Generation)]
    changed = {name for name, value in OTHER.items() if getattr(Generation(), name) != value}
    assert changed == OTHER.keys() - {"sigmas"}  # timesteps are given, with which there are none


def test_the_command_line_parses_every_option():
    words = ["a chair", "a taxi"]
    expected = replace(Generation(**OTHER), lora_scales=None)  # the command line has them with their files
    for name, value in OTHER.items():
        if getattr(expected, name) is None:
            continue
        if name != "prompts" and value != ():
            flag = f"--{name.replace('_', '-')}"
            several = map(str, value) if isinstance(value, tuple) else (str(value),)
            words += [flag] if value is True else [flag, *several]
    assert tyro.cli(GenerateArguments, args=words).generation == expected


def test_the_api_takes_every_option_and_echoes_it():
    api_schemas = pytest.importorskip("diffsplat.web.api_schemas")
    of_one = {name: value for name, value in OTHER.items() if name not in OF_SEVERAL_OBJECTS}
    sent = {"prompt": "a chair", **of_one}
    generation = api_schemas.JobOptions(**sent).generation()
    assert generation == Generation(**of_one, prompts=("a chair",))
    assert api_schemas.JobOptions(prompt="a chair").generation() == Generation(prompts=("a chair",))
    echoed = set(api_schemas.JobView.model_json_schema()["required"])
    assert echoed >= set(sent)
    for schema in (api_schemas.JobOptions, api_schemas.JobView):
        described = schema.model_json_schema()["properties"]
        assert "guidance" in described["guidance"]["description"]


def test_defaults_of_the_model_take_the_place_of_none():
    resolved = Generation(prompts=("a chair",)).resolved(DEFAULTS)
    assert (resolved.steps, resolved.guidance, resolved.elevation_deg) == (7, 3.5, 12.0)
    assert Generation(**OTHER).resolved(DEFAULTS) == ResolvedGeneration(**OTHER)
    zero = Generation(prompts=("a chair",), guidance=0.0, elevation=0.0).resolved(DEFAULTS)
    assert (zero.guidance, zero.elevation_deg) == (0.0, 0.0)
    assert resolved.resolved(SamplingDefaults()) == resolved


def test_with_an_image_prompts_may_be_empty_and_the_elevation_is_left_to_the_estimator():
    resolved = Generation().resolved(DEFAULTS, from_image=True)
    assert resolved.prompts == ("",)
    assert resolved.elevation is None
    with pytest.raises(ValueError, match="the elevation of the image is unknown"):
        _ = resolved.elevation_deg
    assert replace(resolved, elevation=20.0).elevation_deg == 20.0
    for prompts, message in (((), "no prompt was given"), (("a chair", " "), "the prompt is empty")):
        with pytest.raises(ValueError, match=message):
            Generation(prompts=prompts).resolved(DEFAULTS)


@pytest.mark.parametrize(("guidance", "texts"), [(1.0, ["a chair"]), (1.1, ["a chair", "blue"])])
def test_the_negative_prompt_is_encoded_where_there_is_guidance(guidance, texts):
    generation = Generation(prompts=("a chair",), negative_prompt="blue", guidance=guidance)
    assert generation.resolved(DEFAULTS).texts == texts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 10**400 * -1}, "the steps is -1"),
        ({"guidance": 10**400}, "the guidance is 1000"),
        ({"least_guidance": -0.1}, "the least guidance is -0.1, expected a finite number from 0 to 1000"),
        ({"control_scale": float("inf")}, "the control scale is inf, expected a finite number"),
        ({"elevation": "10"}, "the elevation is '10', expected a finite number from -90 to 90"),
        ({"seed": 2**63 - 1, "count": 2}, "the last seed is 9223372036854775808"),
        ({"seed": True}, "the seed is True, expected a whole number"),
        ({"sampler": "heun"}, r"the sampler is 'heun', expected one of: dpm\+\+"),
        ({"eta": 1.5}, "the eta is 1.5, expected a finite number from 0 to 1"),
        ({"sigmas": (1.0, float("inf"))}, "inf is among the sigmas"),
    ],
)
def test_values_out_of_bounds_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Generation(**options)


def test_an_option_that_is_none_is_a_programming_error(small_pipeline: DiffSplatPipeline):
    with pytest.raises(TypeError, match="colour"):
        small_pipeline("a chair", colour="red")


def test_one_object_of_several_alone():
    both = Generation(prompts=("a", "b"), seeds=(1, 2, 3, 4), negative_prompts=("c", "d"))
    assert both.objects == (("a", 1), ("a", 2), ("b", 3), ("b", 4))
    assert both.single(2) == Generation(prompts=("b",), seed=3, negative_prompt="d")
    counted = Generation(prompts=("a", "b"), seed=7, count=2, negative_prompt="c")
    assert counted.single(3) == Generation(prompts=("b",), seed=8, negative_prompt="c")
