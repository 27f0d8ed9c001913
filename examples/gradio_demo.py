"""A demo for those who host Gradio Spaces: a prompt in, an object to turn and to take away.

pip install diffsplat gradio
python examples/gradio_demo.py

``diffsplat serve`` needs neither and does more; this is the short form of it.
"""

import argparse
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.object_writing import write_object
from diffsplat.pipelines.prompt_file_names import slug

EXAMPLES = ["a red armchair", "a wooden barrel", "a blue car"]
Progress = Callable[[float, str], None]
Files = tuple[str, str, int]


def make_generate(
    pipe: DiffSplatPipeline, folder: Path, frames: int = 60
) -> Callable[[str, str, int, float, int, Progress], Files]:
    """The function behind the button.

    Args:
        pipe: the model.
        folder: where files are put.
        frames: of the turntable video.
    """

    def generate(
        prompt: str, negative: str, steps: int, guidance: float, seed: int, progress: Progress
    ) -> Files:
        """Paths of the splats and of a turntable video, and the seed; a negative one takes any."""
        chosen = random.randrange(2**32) if seed < 0 else int(seed)
        output = pipe(
            prompt,
            negative_prompt=negative,
            steps=int(steps),
            guidance=guidance,
            seed=chosen,
            callback=lambda done, total: progress(done / total, f"Step {done} of {total}"),
        )
        target = Path(tempfile.mkdtemp(dir=folder))
        splats, video = (target / f"{slug(prompt)}{suffix}" for suffix in (".ply", ".mp4"))
        (item,) = output.objects()
        for path in (splats, video):
            write_object(item, path, frames=frames)
        return str(splats), str(video), chosen

    return generate


def build(gradio: Any, pipe: DiffSplatPipeline, folder: Path) -> Any:
    """The page, of Gradio's blocks."""
    generate = make_generate(pipe, folder)
    bar = gradio.Progress()

    # Gradio finds the place for its progress bar by this default.
    def on_click(prompt: str, negative: str, steps: int, guidance: float, seed: int, bar: Any = bar) -> Files:
        try:
            return generate(
                prompt, negative, steps, guidance, seed, lambda share, text: bar(share, desc=text)
            )
        except ValueError as error:
            raise gradio.Error(str(error)) from error

    with gradio.Blocks(title="diffsplat") as page:
        with gradio.Row():
            with gradio.Column():
                prompt = gradio.Textbox(label="Prompt", value=EXAMPLES[0], max_length=1000)
                negative = gradio.Textbox(label="Negative prompt", max_length=1000)
                steps = gradio.Slider(1, 100, value=pipe.defaults.steps, step=1, label="Steps")
                guidance = gradio.Slider(0, 15, value=pipe.defaults.guidance, label="Guidance")
                seed = gradio.Number(-1, precision=0, label="Seed (-1 for any)")
                button = gradio.Button("Generate", variant="primary")
            with gradio.Column():
                splats, video = gradio.Model3D(label="Object"), gradio.Video(label="Turntable", loop=True)
        button.click(on_click, [prompt, negative, steps, guidance, seed], [splats, video, seed])
        gradio.Examples([[example] for example in EXAMPLES], [prompt])
    return page


def main() -> None:
    """Serve the page on this machine."""
    import gradio

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", default="mini", help="a model's name or folder")
    pipe = DiffSplatPipeline.from_pretrained(parser.parse_args().model)
    with tempfile.TemporaryDirectory() as folder:
        build(gradio, pipe, Path(folder)).queue(max_size=16).launch(allowed_paths=[folder])


if __name__ == "__main__":
    main()
