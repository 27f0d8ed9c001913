"""What a model says that it does not know: the shipped one on nouns of both kinds, and the words by hand."""

from pathlib import Path

import pytest

import diffsplat
from diffsplat.cli.models import words
from diffsplat.data.training_vocabulary import TrainingVocabulary
from diffsplat.evaluation.evaluation_prompts import stored_prompts
from diffsplat.models.text.quantized_sentence_encoder import TextEncoder
from diffsplat.pipelines.unfamiliar_prompts import KnownWords, is_one_slip

MINI = Path(diffsplat.__file__).parent / "weights" / "mini"
FOREIGN = ("elephant", "penguin", "giraffe", "helicopter", "violin", "trombone", "stethoscope", "vampire")


@pytest.fixture(scope="module")
def known() -> KnownWords:
    trained = TrainingVocabulary.from_folder(MINI)
    assert trained is not None
    return KnownWords(trained, TextEncoder.from_pretrained(MINI / "text_encoder"))


def test_no_prompt_of_the_evaluation_is_far(known: KnownWords) -> None:
    prompts = [item.prompt for sentences in (False, True) for item in stored_prompts(sentences=sentences)]
    assert len(prompts) == 200
    assert [prompt for prompt in prompts if known.notice(prompt)] == []


def test_foreign_nouns_are_named_with_three_known_ones(known: KnownWords) -> None:
    warned = [notice for noun in FOREIGN if (notice := known.notice(f"a red {noun}"))]
    assert len(warned) >= 7
    for notice in warned:
        assert notice.startswith("the model was trained on nothing like 'a red ")
        nearest = notice.split(": ")[1].replace(" and ", ", ").split(", ")
        assert len(set(nearest)) == 3
        assert set(nearest) <= set(known.words.nouns)


@pytest.mark.parametrize(
    "prompt",
    [
        *("two chairs", "a COUCH", "an apple", "three knives", "Bookshelf!", "the street lamp over there"),
        *("an orange chiar", "a tabel", "purple botle", "", "a red"),
    ],
)
def test_plurals_synonyms_and_typing_errors_are_known(known: KnownWords, prompt: str) -> None:
    assert known.notice(prompt) is None


def test_a_verb_is_no_tool(known: KnownWords) -> None:
    assert known.notice("the elephant that we saw yesterday") is not None
    assert known.notice("a saw") is None


@pytest.mark.parametrize(
    ("one", "other", "slip"),
    [
        ("chiar", "chair", True),
        ("chai", "chair", True),
        ("chaiir", "chair", True),
        ("choir", "chair", True),
        ("chair", "chair", False),
        ("achir", "chair", False),
        ("chrai", "chair", False),
        ("stair", "chair", False),
        ("ab", "ba", True),
    ],
)
def test_slips(one: str, other: str, slip: bool) -> None:
    assert is_one_slip(one, other) is slip
    assert is_one_slip(other, one) is slip


def test_the_words_of_the_shipped_model(capsys: pytest.CaptureFixture[str]) -> None:
    """2,526 objects to train on, as the model's card says."""
    words("mini")
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert sum(int(count) for count, _ in lines) == 2526
    assert lines == sorted(lines, key=lambda line: -int(line[0]))
    assert ["52", "chair"] in lines


def test_a_model_that_does_not_say(tmp_path: Path) -> None:
    assert TrainingVocabulary.from_folder(tmp_path) is None
    (tmp_path / "words.json").write_text('{"nouns": []}')
    with pytest.raises(ValueError, match="lists no nouns"):
        TrainingVocabulary.from_folder(tmp_path)
