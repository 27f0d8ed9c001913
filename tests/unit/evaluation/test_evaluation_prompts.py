import re
from collections import Counter
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import get_args

import pytest

from diffsplat.evaluation.evaluation_prompts import (
    PROMPT_NOUNS,
    JudgedPrompt,
    PromptSet,
    build_prompts,
    captioned_pairs,
    stored_prompts,
)
from diffsplat.images.color_words import COLOR_WORDS


@dataclass(frozen=True)
class Item:
    name: str
    noun: str
    colors: tuple[str, ...]
    captions: tuple[str, ...]


def item(name: str, noun: str, *colors: str, synonym: str = "") -> Item:
    captions = (f"a {' and '.join(colors)} {noun}", *([f"a {colors[0]} {synonym}"] if synonym else []))
    return Item(name, noun, colors, captions)


NOUNS = [f"thing{number:02d}" for number in range(50)]


def catalogue() -> list[Item]:
    """Forty-five nouns in two colours, five common ones in all eleven."""
    rare = [item(noun, noun, color) for noun in NOUNS[:45] for color in ("red", "blue")]
    common = [item(f"{noun} {color}", noun, color) for noun in NOUNS[45:] for color in COLOR_WORDS]
    return rare + common


def test_two_colors_a_noun_and_half_of_the_pairs_absent():
    objects = catalogue()
    prompts = build_prompts(objects, NOUNS)
    assert len(prompts) == len({prompt.prompt for prompt in prompts}) == 100
    assert set(Counter(prompt.noun for prompt in prompts).values()) == {2}
    assert sum(prompt.trained for prompt in prompts) == 50
    real = {(entry.noun, color) for entry in objects for color in entry.colors}
    assert all(((prompt.noun, prompt.color) in real) == prompt.trained for prompt in prompts)
    assert all(
        prompt.prompt == f"{_article(prompt.color)} {prompt.color} {prompt.noun}" for prompt in prompts
    )


def test_the_same_whatever_the_order():
    objects = catalogue()
    assert build_prompts(objects, NOUNS) == build_prompts(objects[::-1], NOUNS[::-1])


def test_synonyms_and_double_colors_count_as_said():
    objects = [item("a", "house", "red", "white", synonym="hut"), item("b", "armchair", "blue")]
    assert captioned_pairs(objects, ["house", "hut", "chair", "armchair"]) == {
        ("house", "red"),
        ("house", "white"),
        ("hut", "red"),
        ("hut", "white"),
        ("armchair", "blue"),
    }


def test_what_cannot_work_is_refused():
    objects = catalogue()
    with pytest.raises(ValueError, match="49 different nouns"):
        build_prompts(objects, NOUNS[:49])
    with pytest.raises(ValueError, match="'thing00'"):
        build_prompts(objects[2:], NOUNS)
    everywhere = [item(f"{noun} {color}", noun, color) for noun in NOUNS for color in COLOR_WORDS]
    with pytest.raises(ValueError, match="every colour"):
        build_prompts(everywhere, NOUNS)


@pytest.mark.parametrize("name", get_args(PromptSet))
def test_the_stored_prompts(name: PromptSet):
    prompts = stored_prompts(name)
    assert {prompt.noun for prompt in prompts} == set(PROMPT_NOUNS[name])
    assert len({prompt.prompt for prompt in prompts}) == 100
    assert len({prompt.noun for prompt in prompts}) == 50
    assert set(Counter(prompt.noun for prompt in prompts).values()) == {2}
    assert Counter(prompt.trained for prompt in prompts) == {True: 50, False: 50}
    assert {prompt.color for prompt in prompts} <= set(COLOR_WORDS)
    for prompt in prompts:
        assert isinstance(prompt, JudgedPrompt)
        assert re.fullmatch(rf"((a|an) )?{prompt.color} {prompt.noun}", prompt.prompt)


@pytest.mark.parametrize("name", get_args(PromptSet))
def test_sentences_ask_for_the_same_objects(name: PromptSet):
    plain, free = stored_prompts(name), stored_prompts(name, sentences=True)
    assert len({item.prompt for item in free} - {item.prompt for item in plain}) == 100
    for asked, sentence in zip(plain, free, strict=True):
        assert replace(sentence, prompt=asked.prompt) == asked
        words = re.findall(r"[a-z]+", sentence.prompt.lower())
        assert get_close_matches(asked.color, words, 1, 0.8)  # some have typing errors


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
