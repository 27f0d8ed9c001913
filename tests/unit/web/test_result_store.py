"""Jobs in a folder, read again."""

from pathlib import Path

import torch

from diffsplat.geometry import ring_cameras
from diffsplat.pipelines.generation_options import ResolvedGeneration
from diffsplat.pipelines.image_and_control_conditions import ConditionImages
from diffsplat.pipelines.pipeline_output import GeneratedObject
from diffsplat.web.job_queue import Job
from diffsplat.web.result_store import ResultStore
from support.splat_figures import blocks


def test_a_job_comes_back_with_its_objects_and_images(tmp_path: Path):
    image, first, second, prompt = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images = ConditionImages(image, torch.cat([first, second]), prompt)
    made = GeneratedObject(blocks(), ring_cameras(10.0, size=16), 10.0, "a chair", 7)
    options = ResolvedGeneration(prompts=("a chair",), seed=7)
    job = Job("a", "small", options, images, "done", results=(made,), finished_s=1.0)
    store = ResultStore(tmp_path)
    store.begin(job)
    store.finish(job)
    (back,) = store.jobs()
    expected = {"image": image, "control": first, "control-2": second, "ip_adapter_image": prompt}
    assert back.named_images.keys() == expected.keys()
    assert all(torch.equal(back.named_images[name], value) for name, value in expected.items())
    assert torch.equal(back.results[0].splats.means, made.splats.means)
    assert (back.state, back.generation.seed, back.nbytes) == ("done", 7, job.nbytes)
