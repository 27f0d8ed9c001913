"""The nouns of training objects, counted by hand."""

from types import SimpleNamespace

from diffsplat.data.training_vocabulary import TrainingVocabulary


def row(noun, caption, split="train", variant=""):
    return SimpleNamespace(noun=noun, captions=(caption,), split=split, variant=variant)


def test_objects_are_counted_once_and_other_names_kept(tmp_path):
    rows = [
        row("sofa", "a red and white sofa"),
        row("sofa", "a blue corner sofa", variant="blue"),
        row("dinosaur", "a green stegosaurus"),
        row("dinosaur", "a grey triceratops"),
        row("cat", "a grey cat", split="test"),
    ]
    words = TrainingVocabulary.of(rows)
    assert list(words.nouns.items()) == [("dinosaur", 2), ("sofa", 1)]
    assert words.names == {"couch": "sofa", "stegosaurus": "dinosaur", "triceratops": "dinosaur"}
    words.save(tmp_path)
    assert TrainingVocabulary.from_folder(tmp_path) == words
    assert words.examples() == ("a red dinosaur", "an orange sofa")
