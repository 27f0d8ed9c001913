"""The Gradio example, as far as it goes without Gradio."""

import importlib.util
from pathlib import Path

import pytest

from diffsplat.io.splat_formats import read_splats

EXAMPLE = Path(__file__).parents[2] / "examples" / "gradio_demo.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("gradio_demo", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_button_makes_files_and_tells_every_step(example, small_pipeline, tmp_path):
    told = []
    generate = example.make_generate(small_pipeline, tmp_path, frames=2)
    splats, video, seed = generate(
        "a red chair", "", 2, 2.5, 7, lambda share, text: told.append((share, text))
    )
    assert (told, seed) == ([(0.5, "Step 1 of 2"), (1.0, "Step 2 of 2")], 7)
    truth = small_pipeline("a red chair", steps=2, guidance=2.5, seed=7).splats[0].visible()
    assert read_splats(splats).count == truth.count
    assert Path(video).read_bytes()[4:8] == b"ftyp"


def test_any_seed_is_said_and_bad_prompts_are_refused(example, small_pipeline, tmp_path):
    generate = example.make_generate(small_pipeline, tmp_path, frames=1)
    *_, seed = generate("a chair", "", 1, 1.0, -1, lambda *_: None)
    assert 0 <= seed < 2**32
    with pytest.raises(ValueError, match="the prompt is empty"):
        generate(" ", "", 1, 1.0, 0, lambda *_: None)
