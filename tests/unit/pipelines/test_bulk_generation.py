"""Long lists of prompts: files, index, interruptions, failures; with a network that returns at once."""

import json
import resource
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("pyarrow")

from pyarrow import dataset, parquet

from diffsplat.core import Splats
from diffsplat.errors import InvalidInputError
from diffsplat.geometry import ring_cameras
from diffsplat.io.splat_formats import read_splats
from diffsplat.pipelines.bulk_generation import BulkJob, PartWorker, PromptFile, generate_list
from diffsplat.pipelines.generation_options import ResolvedGeneration
from diffsplat.pipelines.pipeline_output import SplatOutput

OPTIONS = ResolvedGeneration(prompts=("-",), elevation=10.0, steps=3)
CAMERAS = ring_cameras(size=8)


@dataclass
class Stub:
    """A network that makes one Gaussian for every object, whose colour tells prompt and seed."""

    objects_per_pass: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    calls: list[tuple[str, ...]] = field(default_factory=list)
    stop_after: int = 10**9
    kept: int = 10**9

    def generate(self, generation: ResolvedGeneration, /) -> SplatOutput:
        if len(self.calls) >= self.stop_after:
            raise KeyboardInterrupt
        self.calls = [*self.calls, generation.prompts][-self.kept :]
        if any("forbidden" in prompt for prompt in generation.prompts):
            raise InvalidInputError("the prompt is forbidden")
        colors = torch.tensor([[len(p) / 100, s / 10, 0.5] for p, s in generation.objects])[:, None]
        ones = torch.ones(len(colors), 1)
        splats = Splats(
            means=torch.zeros(len(colors), 1, 3),
            scales=0.1 * ones[..., None].expand(-1, -1, 3),
            quats=torch.tensor([1.0, 0, 0, 0]).expand(len(colors), 1, 4),
            opacities=ones,
            colors=colors,
        )
        return SplatOutput(splats, CAMERAS.for_objects(len(colors)), generation)


def job(folder: Path, lines: list[str], part: int = 4, **changes) -> BulkJob:
    path = folder / "prompts.txt"
    path.write_text("\n".join(lines), encoding="utf-8-sig")
    made = BulkJob(
        PromptFile.open(path, part),
        folder / "out",
        OPTIONS,
        {"model": "stub", "revision": "1", "version": "0"},
    )
    return replace(made, **changes)


def contents(folder: Path) -> dict[str, bytes]:
    """All splat files."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.ply")}


def test_every_prompt_gets_its_files_and_a_row(tmp_path: Path):
    lines = [
        "a red chair",
        "",
        "  ",
        "a blue mug",
        *[f"object {n}" for n in range(8)],
        "ein Stuhl für zwei",
        "",
    ]
    options = replace(OPTIONS, seed=3, count=2)
    made = job(tmp_path, lines, options=options, objects_per_pass=4)
    assert generate_list(made, Stub, progress=False) == 0
    prompts = [line.strip() for line in lines if line.strip()]
    table = dataset.dataset(tmp_path / "out" / "index").to_table().to_pylist()
    assert [(row["number"], row["prompt"], row["seed"]) for row in table] == [
        (number, prompt, seed) for number, prompt in enumerate(prompts) for seed in (3, 4)
    ]
    for row in table:
        path = tmp_path / "out" / row["file"]
        splats = read_splats(path)
        assert splats.colors[0, 0].item() == pytest.approx(len(row["prompt"]) / 100, abs=1e-5)
        assert splats.colors[0, 1].item() == pytest.approx(row["seed"] / 10, abs=1e-5)
        assert row["bytes"] == path.stat().st_size
        assert row["gaussians"] == 1
        beside = json.loads(path.with_suffix(".json").read_text())
        assert {name: beside[name] for name in ("prompt", "seed", "model", "revision", "version")} == {
            "prompt": row["prompt"],
            "seed": row["seed"],
            "model": "stub",
            "revision": "1",
            "version": "0",
        }
        assert beside["options"]["steps"] == 3
        assert json.loads(row["options"]) == beside["options"]
    assert {path.parent.name for path in (tmp_path / "out").rglob("*.ply")} == {"00000", "00001", "00002"}


@pytest.mark.parametrize("stop_after", [1, 3, 4, 5])
def test_an_interrupted_list_is_continued_and_nothing_is_made_twice(tmp_path: Path, stop_after: int):
    lines = [f"object {n}" for n in range(11)]
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    generate_list(job(tmp_path / "whole", lines, objects_per_pass=2), Stub, progress=False)
    cut = job(tmp_path / "cut", lines, objects_per_pass=2)
    first, second = Stub(stop_after=stop_after), Stub()
    with pytest.raises(KeyboardInterrupt):
        generate_list(cut, lambda: first, progress=False)
    assert generate_list(cut, lambda: second, progress=False) == 0
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    passes = [("object 0", "object 1"), ("object 2", "object 3"), ("object 4", "object 5")]
    passes += [("object 6", "object 7"), ("object 8", "object 9"), ("object 10",)]
    assert first.calls + second.calls == passes
    rows = [
        row.to_pylist()
        for row in (parquet.read_table(tmp_path / n / "out" / "index") for n in ("whole", "cut"))
    ]
    for row in [*rows[0], *rows[1]]:
        row.pop("seconds")
    assert rows[0] == rows[1]


def test_a_file_that_was_lost_is_made_again(tmp_path: Path):
    made = job(tmp_path, ["a", "b", "c", "d", "e"], part=5)
    generate_list(made, Stub, progress=False)
    before = contents(tmp_path)
    made.index(0).unlink()
    (tmp_path / "out" / "00000" / "0000002-c.json").unlink()
    stub = Stub()
    generate_list(made, lambda: stub, progress=False)
    assert stub.calls == [("c",)]
    assert contents(tmp_path) == before


def test_a_prompt_that_cannot_be_used_costs_itself_alone(tmp_path: Path):
    made = job(tmp_path, ["a", "b", "forbidden", "d", "e"], objects_per_pass=3)
    assert generate_list(made, Stub, progress=False) == 1
    table = dataset.dataset(tmp_path / "out" / "index").to_table().to_pylist()
    assert [row["error"] for row in table] == [None, None, "the prompt is forbidden", None, None]
    assert [row["file"] is None for row in table] == [False, False, True, False, False]
    stub = Stub()
    assert generate_list(made, lambda: stub, progress=False) == 0
    assert stub.calls == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"options": replace(OPTIONS, steps=4)}, "was started with another options"),
        ({"origin": {"model": "stub", "revision": "2", "version": "0"}}, "another revision"),
        ({"suffix": ".spz"}, "another suffix"),
    ],
)
def test_a_folder_belongs_to_one_list(tmp_path: Path, changes: dict, words: str):
    made = job(tmp_path, ["a", "b"])
    generate_list(made, Stub, progress=False)
    with pytest.raises(InvalidInputError, match=words):
        generate_list(replace(made, **changes), Stub, progress=False)
    with pytest.raises(InvalidInputError, match="another prompts"):
        generate_list(job(tmp_path, ["a", "c"]), Stub, progress=False)


def test_files_that_hold_no_prompts(tmp_path: Path):
    path = tmp_path / "prompts.txt"
    for content, words in ((b"\n  \n", "holds no prompts"), (b"\xff\xfe\xff", "not a text file in UTF-8")):
        path.write_bytes(content)
        with pytest.raises(InvalidInputError, match=words):
            PromptFile.open(path, 10)


def resident() -> int:
    """Bytes of memory that this process has of its own."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("count", [400, pytest.param(100_000, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_list(tmp_path: Path, count: int):
    """Records of 100,000 objects alone would be 100 MB, their splats more."""
    path, part = tmp_path / "prompts.txt", count // 100
    with path.open("w") as file:
        file.writelines(f"a thing that is described by the number {n}\n" for n in range(count))
    options = {"model": "", "revision": "", "version": ""}
    made = BulkJob(PromptFile.open(path, part), tmp_path / "out", OPTIONS, options, objects_per_pass=100)
    worker = PartWorker(made, lambda: Stub(kept=1))
    made.begin()
    worker(0)
    before = resident()
    assert generate_list(made, lambda: Stub(kept=1), progress=False) == 0
    assert resident() - before < 30e6
    assert dataset.dataset(tmp_path / "out" / "index").count_rows() == count
