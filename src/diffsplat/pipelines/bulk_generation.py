"""Objects for long lists of prompts: in numbered folders with an index, by one process or many, resumable."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from diffsplat.data.parallel_map import Failure, ray_worker_results
from diffsplat.data.shard_schema import import_pyarrow
from diffsplat.errors import DiffSplatError, InvalidInputError, MissingFileError, one_line
from diffsplat.io.file_access import atomic_path, explained_os_errors, make_folder, require_readable
from diffsplat.io.json_files import read_json, write_json
from diffsplat.io.splat_formats import UpAxis
from diffsplat.pipelines.generation_options import ResolvedGeneration
from diffsplat.pipelines.object_writing import write_object
from diffsplat.pipelines.pipeline_output import GeneratedObject, SplatOutput
from diffsplat.pipelines.prompt_file_names import slug

RUN_FILE = "run.json"
INDEX_FOLDER = "index"
_MOST_PER_PASS = 64
_USED_MEMORY = 0.8


class Generator(Protocol):
    """The part of :class:`~diffsplat.pipelines.DiffSplatPipeline` that lists of prompts need."""

    objects_per_pass: int

    @property
    def device(self) -> torch.device:
        """Device that computes."""
        ...

    def generate(self, generation: ResolvedGeneration, /) -> SplatOutput:
        """Generate splats."""
        ...


@dataclass(frozen=True)
class PromptFile:
    """A text file with a prompt in every line that is not blank, read in parts.

    Args:
        path: the file, in UTF-8.
        starts: place in the file of the first prompt of every part.
        length: number of prompts.
        part_length: prompts of a part.
        digest: changes with the content.
    """

    path: Path
    starts: tuple[int, ...]
    length: int
    part_length: int
    digest: str

    @classmethod
    def open(cls, path: Path, part_length: int) -> PromptFile:
        """Find the parts of a text file in UTF-8 that holds prompts; none of them is kept.

        Raises:
            ValueError: when the file cannot be read, is not in UTF-8, or holds no prompt.
        """
        digest, starts, length, place = hashlib.sha256(), list[int](), 0, 0
        with explained_os_errors(f"cannot read {str(path)!r}"), require_readable(path).open("rb") as file:
            for line in file:
                digest.update(line)
                if _text(line, path):
                    if length % part_length == 0:
                        starts.append(place)
                    length += 1
                place += len(line)
        if not length:
            raise InvalidInputError(f"{str(path)!r} holds no prompts, expected one in every line")
        return cls(path, tuple(starts), length, part_length, digest.hexdigest()[:16])

    def numbers(self, part: int) -> range:
        """The numbers of a part's prompts in the file."""
        first = part * self.part_length
        return range(first, min(first + self.part_length, self.length))

    def part(self, number: int) -> list[tuple[int, str]]:
        """The prompts of a part with their numbers in the file."""
        with self.path.open("rb") as file:
            file.seek(self.starts[number])
            texts = filter(None, (_text(line, self.path) for line in file))
            return list(zip(self.numbers(number), texts, strict=False))


def _text(line: bytes, path: Path) -> str:
    try:
        return line.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{str(path)!r} is not a text file in UTF-8") from error


@dataclass(frozen=True)
class BulkJob:
    """A list of prompts to make objects of.

    Args:
        prompts: the list.
        out: folder; each part of the list gets a folder in it, and a file of ``index``.
        options: of every object; its prompts are replaced.
        origin: what the records say besides: model, revision, version.
        suffix: of the splat files.
        up: axis that points up in them; what is usual in the format by default.
        objects_per_pass: objects that are denoised together; 0 for as many as a GPU's memory holds, one on a CPU.
    """

    prompts: PromptFile
    out: Path
    options: ResolvedGeneration
    origin: dict[str, str] = field(default_factory=dict)
    suffix: str = ".ply"
    up: UpAxis | None = None
    objects_per_pass: int = 0

    def begin(self) -> list[int]:
        """Claim the folder; returns the numbers of the parts still to do.

        Raises:
            ValueError: when it is that of another list, model or options.
        """
        make_folder(self.out / INDEX_FOLDER)
        record = json.loads(json.dumps(self._record()))
        path = self.out / RUN_FILE
        if path.is_file():
            before = read_json(path, "choose another folder")
            changed = [name for name, value in record.items() if before.get(name) != value]
            if changed:
                raise InvalidInputError(
                    f"{str(self.out)!r} was started with another {' and '.join(changed)}, expected the same or "
                    "another folder"
                )
        else:
            write_json(record, path)
        return [number for number in range(len(self.prompts.starts)) if not self.index(number).is_file()]

    def index(self, number: int) -> Path:
        """Index of a part; it is there when the part is done."""
        return self.out / INDEX_FOLDER / f"{number:05d}.parquet"

    def _record(self) -> dict[str, Any]:
        return {
            "prompts": [self.prompts.digest, self.prompts.length, self.prompts.part_length],
            "options": _options(self.options),
            "suffix": self.suffix,
            "up": self.up,
            "objects_per_pass": self.objects_per_pass,
            **self.origin,
        }


def generate_list(
    job: BulkJob, open_generator: Callable[[], Generator], *, ray: str | None = None, progress: bool = True
) -> int:
    """Make the objects of every part that is not done yet; how many could not be made, and their index says why.

    Files appear whole or not at all, and a part's index after its files, so that a call that was interrupted, or whose
    workers or driver were killed, is continued by the next; objects that are there are not made again.

    Args:
        job: the list.
        open_generator: opens the model, once in every process.
        ray: address of a Ray cluster whose workers make the parts; all of them must see the files.
        progress: show a bar.

    Raises:
        ValueError: the folder is that of another job, or a part was lost again and again.
    """
    todo = job.begin()
    make = partial(PartWorker, job, open_generator)
    with tqdm(
        total=job.prompts.length * job.options.count,
        initial=(len(job.prompts.starts) - len(todo)) * job.prompts.part_length * job.options.count,
        unit="object",
        disable=not progress,
    ) as bar:
        if not todo:
            return 0
        if ray is None:
            worker = make()
            return sum(worker(number, bar.update) for number in todo)
        failed = 0
        for number, done in zip(todo, ray_worker_results(make, todo, ray), strict=True):
            if isinstance(done, Failure):
                raise InvalidInputError(f"part {number} of the prompts could not be made: {done.reason}")
            failed += done
            bar.update(len(job.prompts.numbers(number)) * job.options.count)
    return failed


class PartWorker:
    """Makes parts of a list with a model that it opens once.

    Args:
        job: the list.
        open_generator: opens the model.
    """

    def __init__(self, job: BulkJob, open_generator: Callable[[], Generator]) -> None:
        self._job = job
        self._generator = open_generator()
        self._generator.objects_per_pass = job.objects_per_pass or objects_that_fit(
            self._generator, job.options
        )

    def __call__(self, number: int, advance: Callable[[int], object] = lambda _objects: None) -> int:
        """Make the objects of a part that are missing, then its index; how many could not be made."""
        job = self._job
        folder = make_folder(job.out / f"{number:05d}")
        prompts = job.prompts.part(number)
        size = max(1, self._generator.objects_per_pass // job.options.count)
        records: list[dict[str, Any]] = []
        # Passes are the same at every start, since what an object is made with can change how it is rounded.
        for start in range(0, len(prompts), size):
            together = prompts[start : start + size]
            found = self._found(folder, together)
            records += found if found is not None else self._made(folder, together)
            advance(len(together) * job.options.count)
        _write_index(records, job.index(number))
        return sum(record["error"] is not None for record in records)

    def _found(self, folder: Path, prompts: Sequence[tuple[int, str]]) -> list[dict[str, Any]] | None:
        """Records of objects that are all there."""
        try:
            return [
                read_json(self._file(folder, *prompt, seed).with_suffix(".json"))
                for prompt in prompts
                for seed in self._seeds
            ]
        except (MissingFileError, InvalidInputError):
            return None

    def _made(self, folder: Path, prompts: Sequence[tuple[int, str]]) -> list[dict[str, Any]]:
        """Objects of some prompts, together; one by one when one of them cannot be made."""
        started = time.perf_counter()
        try:
            options = replace(self._job.options, prompts=tuple(text for _, text in prompts))
            objects = self._generator.generate(options).objects()
        except DiffSplatError as error:
            if len(prompts) > 1:
                return [record for one in prompts for record in self._made(folder, [one])]
            return [self._failed(folder, *prompts[0], seed, one_line(error)) for seed in self._seeds]
        seconds = (time.perf_counter() - started) / len(objects)
        numbered = [prompt for prompt in prompts for _ in self._seeds]
        return [
            self._written(folder, number, made, seconds)
            for (number, _), made in zip(numbered, objects, strict=True)
        ]

    def _written(self, folder: Path, number: int, made: GeneratedObject, seconds: float) -> dict[str, Any]:
        path = self._file(folder, number, made.prompt, made.seed)
        record = self._record(number, made.prompt, made.seed)
        origin = {name: value for name, value in record.items() if value is not None}
        write_object(made, path, up=self._job.up, force=True, origin=origin)
        record |= {
            "file": path.relative_to(self._job.out).as_posix(),
            "bytes": path.stat().st_size,
            "gaussians": len(made.splats.means),
            "seconds": round(seconds, 4),
            "notice": made.notice,
        }
        write_json(record, path.with_suffix(".json"))
        return record

    def _failed(self, folder: Path, number: int, prompt: str, seed: int, reason: str) -> dict[str, Any]:
        record = self._record(number, prompt, seed) | {"error": reason}
        write_json(record, self._file(folder, number, prompt, seed).with_suffix(".json"))
        return record

    def _record(self, number: int, prompt: str, seed: int) -> dict[str, Any]:
        known = {"number": number, "prompt": prompt, "seed": seed, **self._job.origin}
        later = dict.fromkeys(("file", "bytes", "gaussians", "seconds", "notice", "error"))
        return {**known, "options": _options(self._job.options), **later}

    def _file(self, folder: Path, number: int, prompt: str, seed: int) -> Path:
        of_seed = "" if self._job.options.count == 1 else f"-seed{seed}"
        return folder / f"{number:07d}-{slug(prompt)[:40]}{of_seed}{self._job.suffix}"

    @property
    def _seeds(self) -> range:
        options = self._job.options
        return range(options.seed, options.seed + options.count)


def objects_that_fit(generator: Generator, options: ResolvedGeneration) -> int:
    """How many objects a GPU's free memory holds at once, from one step of one object; 1 on a CPU."""
    device = generator.device
    if device.type != "cuda":
        return 1
    generator.objects_per_pass = 1
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    generator.generate(replace(options, prompts=("a chair",), count=1, steps=1))
    one = max(torch.cuda.max_memory_allocated(device) - before, 1)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    return int(min(max(_USED_MEMORY * free // one, 1), _MOST_PER_PASS))


def _options(options: ResolvedGeneration) -> dict[str, Any]:
    return {name: value for name, value in asdict(options).items() if name != "prompts"}


def _write_index(records: Sequence[dict[str, Any]], path: Path) -> None:
    pa = import_pyarrow()
    columns = ("number", "prompt", "seed", "model", "revision", "version", "options", "file", "bytes")
    types = dict.fromkeys((*columns, "gaussians", "seconds", "notice", "error"), pa.string())
    types |= dict.fromkeys(("number", "seed", "bytes", "gaussians"), pa.int64())
    types["seconds"] = pa.float64()
    rows = [{**record, "options": json.dumps(record["options"], sort_keys=True)} for record in records]
    with atomic_path(path, force=True) as temporary:
        pa.parquet.write_table(pa.Table.from_pylist(rows, schema=pa.schema(types)), temporary)
