"""Change how the model samples: components are replaced, steps are watched, a generation is stopped.

python examples/01_change_components.py --out outputs
"""

import sys
from pathlib import Path

import tyro
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from diffsplat.io.file_access import make_folder
from diffsplat.io.image_files import tile_images, write_image
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.prompt_file_names import slug


def main(prompt: str = "a red car", out: Path = Path("outputs"), steps: int = 10) -> None:
    """Write one image for each way of sampling, rows of four views."""
    make_folder(out)
    pipe = DiffSplatPipeline.from_pretrained("mini")

    def watch(done: int, total: int) -> None:
        print(f"step {done} of {total}", file=sys.stderr)

    ways = {
        "as it comes": pipe(prompt, steps=steps, callback=watch),
        "without guidance": pipe(prompt, steps=steps, guidance=1.0),
        "another solver": pipe(prompt, steps=steps, sampler="dpm++"),
        "from 30 degrees above": pipe(prompt, steps=steps, elevation=30.0),
    }
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    ways["more steps near the end"] = pipe(prompt, steps=steps)
    for way, generated in ways.items():
        path = out / f"{slug(way)}.png"
        write_image(tile_images(generated.render(size=128).rgb[0]), path, force=True)
        print(path)


if __name__ == "__main__":
    tyro.cli(main)
