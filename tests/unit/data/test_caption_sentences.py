"""Free captions: what they must keep, and errors that are errors."""

import numpy as np
import pytest

from diffsplat.data.caption_sentences import sentences, with_typing_errors
from diffsplat.data.english_nouns import plural_of, singular_of
from diffsplat.data.object_labels import label_of

PLURALS = {
    "chair": "chairs",
    "box": "boxes",
    "knife": "knives",
    "bus": "buses",
    "toy": "toys",
    "battery": "batteries",
    "woman": "women",
    "fish": "fish",
    "torch": "torches",
    "wine glass": "wine glasses",
    "coffee table": "coffee tables",
    "house": "houses",
    "axe": "axes",
    "cactus": "cactuses",
    "shoe": "shoes",
}


@pytest.mark.parametrize(("one", "many"), PLURALS.items())
def test_plurals(one, many):
    assert plural_of(one) == many
    assert singular_of(many.split()[-1]) == one.split()[-1]
    assert singular_of(one) == one


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("bowl with fruits", "bowls with fruits"),
        ("crate of apples", "crates of apples"),
        ("scissors", "scissors"),
        ("bread", "bread"),
    ],
)
def test_plurals_of_phrases(one, many):
    assert plural_of(one) == many


def test_the_noun_and_the_colours_stay():
    label = label_of("frog")
    long, turned, several, wrong = sentences(label, ("green", "white"))
    for text in (long, turned, several):
        assert "frog" in text
        assert "green and white" in text
    assert len(long.split()) >= 6
    assert several.endswith("frogs")
    assert wrong not in (long, turned, several)
    assert sentences(label, ("green", "white")) == (long, turned, several, wrong)


def test_many_objects_are_described_in_many_ways():
    lines = {line for noun in "abcdefghij" for line in sentences(label_of(f"{noun}og"), ("red",))}
    assert len(lines) > 36


def test_colours_of_people_are_not_named():
    label = label_of("woman", colored=False)
    assert not any("red" in line.split() for line in sentences(label, ("red",)))


@pytest.mark.parametrize("seed", range(40))
def test_a_typing_error_is_one_letter_away(seed):
    """Optimal string alignment by the textbook recurrence, which counts a swap as one."""
    wrong = with_typing_errors("a table", np.random.default_rng(seed))
    assert wrong.split()[0] == "a"
    assert alignment(wrong.split()[1], "table") == 1


def alignment(one, other):
    grid = {(i, -1): i + 1 for i in range(-1, len(one))} | {(-1, j): j + 1 for j in range(-1, len(other))}
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            steps = [grid[i - 1, j] + 1, grid[i, j - 1] + 1, grid[i - 1, j - 1] + (a != b)]
            if i and j and a == other[j - 1] and one[i - 1] == b:
                steps.append(grid[i - 2, j - 2] + 1)
            grid[i, j] = min(steps)
    return grid[len(one) - 1, len(other) - 1]
