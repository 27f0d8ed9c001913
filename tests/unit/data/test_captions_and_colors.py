"""Colours, captions, nouns, splits: against published values, CSS colours and plain English."""

import colorsys

import numpy as np
import pytest

from diffsplat.data import shard_schema
from diffsplat.data.caption_phrases import as_seen, captions, painted, with_article
from diffsplat.data.color_naming import color_shares, color_words
from diffsplat.data.object_labels import Label
from diffsplat.data.object_repainting import apply_lut, palette, repaint_lut
from diffsplat.images.color_words import COLOR_WORDS
from diffsplat.images.oklab import oklab_to_srgb, srgb_to_oklab

# CSS Color Module Level 4 names whose first meaning is one of our words.
CSS = {
    "red": ["#ff0000", "#dc143c", "#b22222", "#8b0000"],
    "orange": ["#ffa500", "#ff8c00"],
    "yellow": ["#ffff00", "#ffd700"],
    "green": ["#008000", "#228b22", "#32cd32", "#2e8b57", "#006400", "#556b2f", "#6b8e23"],
    "blue": ["#0000ff", "#000080", "#4169e1", "#4682b4", "#1e90ff", "#87ceeb"],
    "purple": ["#800080", "#9932cc", "#4b0082", "#8a2be2", "#9370db"],
    "pink": ["#ffc0cb", "#ff69b4", "#ff1493"],
    "brown": ["#8b4513", "#a0522d", "#deb887"],
    "black": ["#000000"],
    "white": ["#ffffff", "#f5f5f5", "#fffafa"],
    "grey": ["#808080", "#696969", "#a9a9a9", "#708090", "#778899"],
}


def rgb(code):
    return np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def test_oklab_has_its_published_values():
    """Red, green, blue and white as given by CSS Color 4 (oklch of the sRGB primaries)."""
    known = {
        (1, 0, 0): (0.62796, 0.22486, 0.12585),
        (0, 1, 0): (0.86644, -0.23389, 0.17950),
        (0, 0, 1): (0.45201, -0.03246, -0.31153),
        (1, 1, 1): (1.0, 0.0, 0.0),
        (0, 0, 0): (0.0, 0.0, 0.0),
    }
    for color, lab in known.items():
        np.testing.assert_allclose(srgb_to_oklab(np.array(color)), lab, atol=2e-5)
    grid = np.random.default_rng(0).random((200, 3))
    np.testing.assert_allclose(oklab_to_srgb(srgb_to_oklab(grid)), grid, atol=1e-7)


@pytest.mark.parametrize(("word", "code"), [(word, code) for word, codes in CSS.items() for code in codes])
def test_css_colours_get_their_word(word, code):
    assert color_words(color_shares(rgb(code)[None])) == (word,)


def pixels(**parts):
    """So many pixels of a colour each, with a little noise."""
    noise = np.random.default_rng(1).normal(0, 0.01, (sum(parts.values()), 3))
    flat = np.concatenate([np.repeat(rgb(CSS[word][0])[None], count, 0) for word, count in parts.items()])
    return np.clip(flat + noise, 0, 1)


def test_material_is_said_of_what_shows_it():
    barrel = Label("barrel", "barrel")
    assert "a wooden barrel" in captions(as_seen(barrel, ("brown", "grey")), ("brown", "grey"))
    assert as_seen(barrel, ("blue",)) == barrel
    assert as_seen(Label("hamburger", "hamburger"), ("brown",)).material == ""
    assert as_seen(Label("box", "cardboard box"), ("brown",)).material == ""
    chair = Label("chair", "old wooden chair", material="wooden")
    assert not any("wood" in line for line in captions(painted(chair), ("pink",)))
    assert "a pink old chair" in captions(painted(chair), ("pink",))


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"red": 90, "white": 10}, ("red",)),
        ({"red": 60, "white": 40}, ("red", "white")),
        ({"white": 45, "black": 15, "blue": 40}, ("blue",)),
        ({"red": 30, "green": 25, "blue": 25, "white": 20}, ()),
        ({"grey": 52, "red": 24, "green": 24}, ("grey",)),
    ],
)
def test_words_are_true_of_mixtures(parts, words):
    assert color_words(color_shares(pixels(**parts))) == words


def test_naming_nothing_is_refused():
    with pytest.raises(ValueError, match="no pixels"):
        color_shares(np.zeros((0, 3)))


@pytest.mark.parametrize(
    ("word", "hue"),
    [
        ("red", (345, 15)),
        ("orange", (20, 45)),
        ("yellow", (42, 65)),
        ("green", (90, 160)),
        ("blue", (200, 250)),
        ("purple", (265, 300)),
    ],
)
def test_repainting_turns_the_large_colour_and_leaves_the_small(word, hue):
    """Hue in HSV, which the code does not use."""
    object_colors = pixels(white=0, pink=800, grey=200)
    shade = np.linspace(0.75, 1.0, 800)[:, None]
    object_colors[:800] *= shade
    painted = apply_lut(repaint_lut(palette(object_colors), word, seed=5), object_colors)
    hues = np.array([colorsys.rgb_to_hsv(*p)[0] * 360 for p in painted[:800:20]])
    low, high = hue
    inside = (hues >= low) & (hues <= high) if low < high else (hues >= low) | (hues <= high)
    assert inside.all()
    np.testing.assert_allclose(painted[800:], object_colors[800:], atol=0.03)
    brightness = painted[:800].sum(axis=1)
    assert brightness[-100:].mean() > brightness[:100].mean() * 1.08


def test_repainting_repeats():
    colors = palette(pixels(green=500))
    np.testing.assert_array_equal(
        repaint_lut(colors, "red", 3), repaint_lut(palette(pixels(green=500)), "red", 3)
    )
    assert np.abs(repaint_lut(colors, "red", 3) - repaint_lut(colors, "red", 4)).max() > 0.005


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("red chair", "a red chair"),
        ("orange armchair", "an orange armchair"),
        ("urinal", "a urinal"),
        ("scissors", "scissors"),
        ("white shelves", "white shelves"),
        ("crate of tomatoes", "a crate of tomatoes"),
        ("bowl with fruits", "a bowl with fruits"),
        ("bus", "a bus"),
        ("wine glass", "a wine glass"),
        ("brown bread", "brown bread"),
    ],
)
def test_articles(words, expected):
    assert with_article(words) == expected


def test_captions_say_the_same_in_several_ways():
    lines = captions(Label("chair", "desk chair"), ("red",))
    assert lines[0] == "a red desk chair"
    assert {"a red chair", "desk chair, red", "a desk chair", "a 3d model of a red chair"} <= set(lines)
    assert len(set(lines)) == len(lines)
    assert not any("red" in line for line in captions(Label("woman", "woman", colored=False), ("red",)))
    assert "a red wooden table" in captions(Label("table", "table", material="wooden"), ("red",))


def test_the_split_never_moves():
    """First 8 bytes of `printf NAME | sha256sum`, modulo 100 by a calculator: 20, 4, 80."""
    assert shard_schema.split_of("kaykit chair") == "train"
    assert shard_schema.split_of("Scopia table") == "test"
    assert shard_schema.split_of("folder cube") == "train"
    held_out = sum(shard_schema.split_of(f"thing {i}") == "test" for i in range(10000))
    assert 900 < held_out < 1100


def test_every_colour_has_a_paint():
    colors = palette(pixels(green=400))
    for word in COLOR_WORDS:
        painted = apply_lut(repaint_lut(colors, word, 0), pixels(green=400))
        assert color_words(color_shares(painted)) == (word,)
