"""A small untrained model, the command line in a process of its own, and recordings of the original."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from torch import nn

from diffsplat.models.multiview_pixart import make_denoiser
from diffsplat.models.principal_component_autoencoder import ComponentAutoencoder
from diffsplat.models.text.bert_encoder import BertConfig, BertEncoder
from diffsplat.models.text.quantized_sentence_encoder import TextEncoder
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pretrained.model_folders import SamplingDefaults
from support.recordings import OFFICIAL, Recordings

pytest_plugins = ["support.release_fixtures", "support.training_data", "support.web_fixtures"]

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "blue", "chair", "taxi", "barrel")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--recordings",
        type=Path,
        default=OFFICIAL,
        metavar="DIR",
        help="folder of inputs and outputs recorded from the original implementation; what it lacks is skipped",
    )


@pytest.fixture(scope="session")
def recordings(request: pytest.FixtureRequest) -> Recordings:
    folder = request.config.getoption("recordings")
    if not folder.is_dir():
        raise pytest.UsageError(f"--recordings {folder}: there is no such folder")
    return Recordings(folder)


def small_text_encoder() -> TextEncoder:
    tokenizer = Tokenizer(WordPiece({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=8,
    )
    return TextEncoder(BertEncoder(config), tokenizer, max_tokens=8)


@pytest.fixture(scope="session")
def small_pipeline() -> DiffSplatPipeline:
    torch.manual_seed(0)
    autoencoder = ComponentAutoencoder(image_size=16, patch=4, latent_channels=4)
    torch.nn.init.normal_(autoencoder.components, std=0.05)
    denoiser = make_denoiser(latent_channels=4, latent_size=4, width=64, layers=2, text_channels=32, patch=1)
    for parameter in denoiser.parameters():  # untrained, the output is almost zero whatever the prompt
        nn.init.normal_(parameter, std=0.15)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.5)
    defaults = SamplingDefaults(steps=3, guidance=2.5, elevation_deg=12.0)
    return DiffSplatPipeline(denoiser, autoencoder, small_text_encoder(), scheduler, defaults)


@pytest.fixture(scope="session")
def small_model(small_pipeline: DiffSplatPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of such a pipeline."""
    folder = tmp_path_factory.mktemp("small-model")
    small_pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def start_command() -> Callable[..., subprocess.Popen[bytes]]:
    """Starts ``diffsplat`` with some words, its output in pipes; it can be interrupted."""

    def start(*words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "diffsplat.cli.main", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A shell that starts the tests in the background has them ignore SIGINT, which children inherit.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (nothing else runs)
        )

    return start
