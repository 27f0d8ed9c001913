"""Which of two denoisers, each sure of one object, makes what a prompt asks for."""

from pathlib import Path

import pytest
import torch

from diffsplat.data.training_vocabulary import TrainingVocabulary
from diffsplat.models import ComponentAutoencoder
from diffsplat.models.multiview_pixart import MultiViewPixArt, make_denoiser
from diffsplat.models.text.quantized_sentence_encoder import TextEncoder
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.pipeline_output import SplatOutput
from diffsplat.pipelines.unfamiliar_prompts import KnownWords
from diffsplat.pretrained.model_folders import SamplingDefaults, find_model
from diffsplat.pretrained.schedulers import FlowEulerScheduler

GENERAL, OF_TEXT = 0.7, -0.2
"""What the denoiser of everything and that of text alone take everything for."""


def sure_denoiser(value: float, channels: int = 3) -> MultiViewPixArt:
    network = make_denoiser(
        latent_channels=channels, latent_size=4, width=64, layers=1, text_channels=384, patch=2
    )
    torch.nn.init.zeros_(network.proj_out.weight)
    torch.nn.init.constant_(network.proj_out.bias, value)
    return network


@pytest.fixture
def pipe() -> DiffSplatPipeline:
    encoder = TextEncoder.from_pretrained(find_model("mini") / "text_encoder")
    made = DiffSplatPipeline(
        sure_denoiser(GENERAL),
        ComponentAutoencoder(image_size=16, patch=4, latent_channels=6),
        encoder,
        FlowEulerScheduler(6.0),
        SamplingDefaults(steps=2, guidance=3.0),
        text_denoiser=sure_denoiser(OF_TEXT),
    )
    words = TrainingVocabulary({"crate": 5, "frog": 2, "orange": 1}, {"box": "crate"})
    made.known_words = KnownWords(words, encoder, TrainingVocabulary({"crate": 4}, {}))
    return made


def made_by(output: SplatOutput) -> list[str]:
    """The denoiser of each object."""
    assert output.latents is not None
    names = {GENERAL: "general", OF_TEXT: "of text"}
    found = [min(names, key=lambda value: abs(float(each.mean()) - value)) for each in output.latents]
    for latents, value in zip(output.latents, found, strict=True):
        torch.testing.assert_close(latents, torch.full_like(latents, value), atol=2e-3, rtol=0)
    return [names[value] for value in found]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a crate", "of text"),
        ("Two BOXES", "of text"),
        ("a crtae", "of text"),
        ("an orange crate", "of text"),  # the colour, although there is a fruit
        ("a red crate for the cellar of my house", "of text"),
        ("a red crate with a small frog on it", "of text"),  # read as "a red crate"
        ("an orange", "general"),
        ("a frog", "general"),
        ("frog and crate", "general"),
        ("a giraffe", "general"),
        ("something", "general"),
    ],
)
def test_a_prompt_goes_to_the_denoiser_that_knows_all_its_objects(
    pipe: DiffSplatPipeline, prompt: str, expected: str
) -> None:
    assert made_by(pipe(prompt)) == [expected]


@pytest.mark.parametrize("together", [1, 2, 8])
def test_each_prompt_of_a_call_has_its_denoiser(pipe: DiffSplatPipeline, together: int) -> None:
    pipe.objects_per_pass = together
    steps: list[tuple[int, int]] = []
    prompts = ["a crate", "a red crate", "a frog", "a crate"]
    found = pipe(prompts, count=2, callback=lambda done, total: steps.append((done, total)))
    assert made_by(found) == ["of text"] * 4 + ["general"] * 2 + ["of text"] * 2
    assert steps[-1][0] == steps[-1][1] == len(steps)


def test_with_offloading_only_the_denoiser_of_a_prompt_moves(
    pipe: DiffSplatPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe.enable_model_cpu_offload("cpu")
    moved: list[object] = []
    move = MultiViewPixArt.to
    monkeypatch.setattr(
        MultiViewPixArt, "to", lambda self, *device: moved.append(self) or move(self, *device)
    )
    for prompt, denoiser in (("a crate", pipe.text_denoiser), ("a frog", pipe.denoiser)):
        moved.clear()
        pipe(prompt)
        assert moved == [denoiser, denoiser]


def test_what_has_no_words_or_a_lora_file_is_made_by_the_denoiser(pipe: DiffSplatPipeline) -> None:
    assert pipe.text_encoder is not None
    encoded = pipe.text_encoder(["a crate", ""])
    given = {"prompt_embeds": encoded.tokens[:1], "negative_prompt_embeds": encoded.tokens[1:]}
    assert made_by(pipe(**given)) == ["general"]
    pipe.denoiser._diffsplat_lora_scales = {"style": 1.0}  # as a loaded file leaves it
    assert made_by(pipe("a crate")) == ["general"]


def test_a_model_folder_keeps_both_and_their_words(pipe: DiffSplatPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "model")
    opened = DiffSplatPipeline.from_pretrained(tmp_path / "model")
    assert made_by(opened(["a crate", "a frog"])) == ["of text", "general"]
    other = DiffSplatPipeline.from_pretrained(tmp_path / "model", denoiser=sure_denoiser(GENERAL))
    assert other.text_denoiser is None  # who brings a denoiser means it for every prompt
    assert made_by(other("a crate")) == ["general"]
    without = DiffSplatPipeline.from_pretrained(tmp_path / "model", text_denoiser=None)
    assert made_by(without("a crate")) == ["general"]


def test_a_denoiser_of_other_latents_is_refused(pipe: DiffSplatPipeline) -> None:
    with pytest.raises(ValueError, match="the text denoiser has 4 out_channels, expected the 3"):
        DiffSplatPipeline(**{**pipe.components, "text_denoiser": sure_denoiser(0.0, channels=4)})


def test_words_of_a_part_are_those_that_it_has_most_objects_of() -> None:
    whole = TrainingVocabulary({"car": 9, "tree": 10, "owl": 1}, {})
    part = TrainingVocabulary({"car": 4, "tree": 5, "owl": 1}, {"oak": "tree", "van": "car"})
    assert part.within(whole) == TrainingVocabulary({"tree": 5, "owl": 1}, {"oak": "tree"})
