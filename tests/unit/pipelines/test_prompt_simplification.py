"""Sentences as people write them, and the object and colour that a reader finds in them."""

from collections.abc import Sequence

import pytest
import torch

from diffsplat import DiffSplatPipeline
from diffsplat.pipelines.prompt_simplification import plain_caption

KNOWN = (
    "chair",
    "table",
    "desk",
    "frog",
    "lamp",
    "palm tree",
    "tree",
    "shoes",
    "soldier",
    "sword",
    "can",
    "fan",
    "lid",
)


def named(words: Sequence[str]) -> str | None:
    spelled = " ".join(words)
    return spelled if spelled in KNOWN else {"frogs": "frog", "tabel": "table"}.get(spelled)


@pytest.mark.parametrize(
    ("prompt", "caption"),
    [
        ("I would love a red chair to read in on Sundays", "a red chair"),
        ("a chair for my daughter, painted entirely in orange", "an orange chair"),
        ("can you please make me a tiny green frog", "a green frog"),
        ("put the lamp on a table next to the window", "a lamp"),
        ("on a table there stands an old blue lamp", "a blue lamp"),
        ("table with a lamp and four wooden legs", "a table"),
        ("the soldier's sword is long and completely black", "a black sword"),
        ("a tall palm tree that grows on a beach", "a palm tree"),
        ("a palm tree, red and white, from a comic", "a red palm tree"),
        ("somebody painted this red and white lamp by hand", "a red and white lamp"),
        ("brown shoes that have seen better days", "brown shoes"),
        ("two brown frogs sitting in the water", "a brown frog"),
        ("my grandmother had a round tabel like that", "a table"),
        ("a desk so big that a fan and a lamp fit", "a desk"),
        ("somebody dropped a black can in the street", "a black can"),
        ("I would like a frog with a red lid", "a red frog"),
        ("just a pair of old red shoes", "red shoes"),
        ("a sword of gold with a red lid", "a red sword"),
        ("THE ORANGE CHAIR, which nobody ever wanted to buy!", "an orange chair"),
    ],
)
def test_the_object_and_its_colour(prompt: str, caption: str) -> None:
    assert plain_caption(prompt, named) == caption


@pytest.mark.parametrize(
    "prompt",
    [
        *("a red chair", "chair, wooden, tall", "", "an elephant that walks through a red desert"),
        *("a yellow duck that swims beside a chair", "the soldier's trumpet made of shining brass"),
    ],
)
def test_short_prompts_and_unknown_objects_stay(prompt: str) -> None:
    assert plain_caption(prompt, named) == prompt


def test_the_embedded_model_makes_what_the_caption_says() -> None:
    pipe = DiffSplatPipeline.from_pretrained("mini")
    pipe.set_progress_bar_config(disable=True)
    long, short = "we need a yellow armchair to put next to the window", "a yellow armchair"
    read = pipe(long, steps=1)
    assert torch.equal(read.latents, pipe(short, steps=1).latents)
    assert read.notices[long] == f"the model reads {long!r} as {short!r}"
    literal = pipe(long, steps=1, literal=True)
    assert not torch.equal(literal.latents, read.latents)
    assert literal.notices == {}


def test_what_a_negative_prompt_says_is_not_read() -> None:
    pipe = DiffSplatPipeline.from_pretrained("mini")
    pipe.set_progress_bar_config(disable=True)
    sentence = "we need a yellow armchair to put next to the window"
    away = [pipe("a sofa", steps=2, negative_prompt=text).latents for text in (sentence, "a yellow armchair")]
    assert not torch.equal(*away)
