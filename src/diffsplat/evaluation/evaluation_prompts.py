"""The prompts that text generation is measured with: fifty nouns in two colours each.

They are chosen from the captions of the training objects, without looking at any generated object: half of
the pairs of noun and colour occur there, half never do.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from diffsplat.core.stable_hash import stable_hash
from diffsplat.data.caption_phrases import with_article
from diffsplat.data.shard_row import ObjectRow
from diffsplat.errors import InvalidInputError
from diffsplat.images.color_words import COLOR_WORDS, ColorWord
from diffsplat.io.file_access import atomic_path

NOUNS = 50
COLORS_PER_NOUN = 2
PromptSet = Literal["mini", "games"]
"""Furniture and props, the nouns of :data:`MINI_NOUNS`; or what games are made of, those of :data:`GAME_NOUNS`.

Each set also has a free sentence for each of its prompts, written before any model was trained on more than plain
captions, and of ``games`` before any was trained on its nouns."""

MINI_NOUNS = (
    *("armchair", "axe", "barrel", "bathtub", "bed", "bench", "bicycle", "book", "bottle", "bowl"),
    *("bucket", "cabinet", "camera", "candle", "car", "carrot", "chair", "chest", "coffin", "crate"),
    *("crossbow", "fan", "fence", "fire hydrant", "hamburger", "knife", "lamp", "laptop", "mailbox", "mug"),
    *("pan", "plant", "plate", "shelf", "shield", "shoes", "skull", "sofa", "stool", "stove"),
    *("street lamp", "sword", "table", "tomato", "torch", "trash can", "tree", "truck", "tv", "washbasin"),
)
"""Nouns of the embedded model's data: the commonest and some rare ones, no people, no synonyms."""

GAME_NOUNS = (
    *("airplane", "alien", "asteroid", "barn", "boat", "bookcase", "bow", "bush", "cactus", "cloud"),
    *("coin", "corn", "crystal", "cupcake", "dagger", "dinosaur", "dog", "donut", "fish", "flag"),
    *("flower", "fountain", "fridge", "gem", "gravestone", "hammer", "heart", "helmet", "horse", "house"),
    *("key", "log", "mountain", "mushroom", "nightstand", "pistol", "planet", "potion", "rifle", "ring"),
    *("robot", "scroll", "shovel", "sideboard", "spaceship", "star", "tank", "tower", "turret", "windmill"),
)
"""Nouns of Quaternius' and Kenney's objects with at least three of them, no people, none of :data:`MINI_NOUNS`."""

PROMPT_NOUNS: dict[PromptSet, tuple[str, ...]] = {"mini": MINI_NOUNS, "games": GAME_NOUNS}


@dataclass(frozen=True)
class JudgedPrompt:
    """A prompt and what the result is judged by.

    Args:
        prompt: the text.
        noun: what must be recognised.
        color: the basic colour word that must dominate.
        trained: whether a training caption says this noun in this colour.
    """

    prompt: str
    noun: str
    color: ColorWord
    trained: bool


def build_prompts(objects: Iterable[ObjectRow], nouns: Iterable[str]) -> list[JudgedPrompt]:
    """Two colours for each of fifty nouns, half of the pairs absent from all captions; the same for the same objects.

    A noun gets one colour in which there is such an object and one that no caption says of it. Nouns that occur in
    every colour get two that occur; for each of them the rarest noun that can gets two that do not.

    Raises:
        ValueError: for another number of nouns, a noun without objects, or too few absent pairs.
    """
    objects = list(objects)
    wanted = sorted(set(nouns))
    if len(wanted) != NOUNS:
        raise InvalidInputError(f"got {len(wanted)} different nouns, expected {NOUNS}")
    in_captions = captioned_pairs(objects, wanted)
    absent: dict[str, list[ColorWord]] = {}
    present: dict[str, list[ColorWord]] = {}
    counts: dict[str, int] = {}
    for noun in wanted:
        own = [item for item in objects if item.noun == noun]
        if not own:
            raise InvalidInputError(f"no training object is a {noun!r}, expected at least one")
        counts[noun] = len({item.name for item in own})
        absent[noun] = [color for color in COLOR_WORDS if (noun, color) not in in_captions]
        present[noun] = [color for color in COLOR_WORDS if any(color in item.colors for item in own)]
    prompts = []
    for noun, unseen in _unseen_colors(absent, counts).items():
        seen = _drawn(noun, present[noun], COLORS_PER_NOUN - unseen)
        prompts += [_prompt(noun, color, trained=True) for color in seen]
        prompts += [_prompt(noun, color, trained=False) for color in _drawn(noun, absent[noun], unseen)]
    return prompts


def _prompt(noun: str, color: ColorWord, *, trained: bool) -> JudgedPrompt:
    return JudgedPrompt(with_article(f"{color} {noun}"), noun, color, trained)


def _unseen_colors(absent: dict[str, list[ColorWord]], counts: dict[str, int]) -> dict[str, int]:
    """How many absent colours each noun is asked for in, one a noun on average."""
    crowded = [noun for noun in absent if not absent[noun]]
    spare = sorted((noun for noun in absent if len(absent[noun]) > 1), key=lambda noun: (counts[noun], noun))
    if len(spare) < len(crowded):
        raise InvalidInputError(
            f"{len(crowded)} nouns occur in every colour and only {len(spare)} can make up for them, "
            "expected other nouns"
        )
    unseen = dict.fromkeys(absent, 1)
    unseen.update(dict.fromkeys(crowded, 0))
    unseen.update(dict.fromkeys(spare[: len(crowded)], COLORS_PER_NOUN))
    return unseen


def captioned_pairs(objects: Iterable[ObjectRow], nouns: Iterable[str]) -> set[tuple[str, str]]:
    """Pairs of noun and colour that the captions of some object say together, the noun anywhere in them."""
    patterns = {noun: re.compile(rf"\b{re.escape(noun)}\b") for noun in nouns}
    pairs = set()
    for item in objects:
        text = "\n".join(item.captions)
        for noun, pattern in patterns.items():
            if item.noun == noun or pattern.search(text):
                pairs |= {(noun, color) for color in item.colors}
    return pairs


def _drawn(noun: str, colors: list[ColorWord], count: int) -> list[ColorWord]:
    """``count`` of the colours in an order that a hash gives."""
    return sorted(colors, key=lambda color: stable_hash(f"{noun}/{color}"))[:count]


def write_prompts(prompts: list[JudgedPrompt], path: Path, *, force: bool = False) -> None:
    """Write a prompt file (JSON)."""
    lines = ",\n".join("  " + json.dumps(asdict(prompt)) for prompt in prompts)
    with atomic_path(path, force=force) as temporary:
        temporary.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def stored_prompts(name: PromptSet = "mini", *, sentences: bool = False) -> list[JudgedPrompt]:
    """A set of prompts that models are measured with, plain or as free sentences."""
    file = f"prompts_{name}_sentences.json" if sentences else f"prompts_{name}.json"
    text = files("diffsplat.evaluation").joinpath(file).read_text(encoding="utf-8")
    return [JudgedPrompt(**entry) for entry in json.loads(text)]
