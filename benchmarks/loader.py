"""Reading objects for training: in line, in a thread and in processes, in turns of one run; start-up with many rows.

    python benchmarks/loader.py [--data DIR] [--workers 2] [--turns 3] [--rows 265232]

A consumer takes batches of two objects in 8 views and then sleeps for as long as the median batch took in line, as if
a GPU trained. Without --data, shards of noisy balls are rendered first. Nothing else should run on the machine.
The last line on stdout is a JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import trimesh
from process_times import descendants, processor_seconds
from tqdm import tqdm

from diffsplat.core import Views
from diffsplat.data import shard_schema
from diffsplat.data.mesh_ingestion import RenderOptions, ingest
from diffsplat.data.mesh_sources import folder_objects
from diffsplat.geometry import orbit_cameras
from diffsplat.training.batch_prefetch import thread_batches, worker_batches
from diffsplat.training.run_folders import RunFolders
from diffsplat.training.view_batches import ViewSource, ViewSourceConfig

BATCH = 2
WARM_UP = 4

START = """
import sys, time, resource
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from diffsplat.training.run_folders import RunFolders
from diffsplat.training.view_batches import ViewSource, ViewSourceConfig
folders = RunFolders(data=(Path(sys.argv[1]),), out=Path(sys.argv[1]) / "out")
before, clock, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter(), time.process_time()
source = ViewSource(ViewSourceConfig(balance_nouns=True, evaluation_objects=0), folders)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(time.perf_counter() - clock, time.process_time() - cpu, (after - before) / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of shards of 256 px")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rows", type=int, default=0, help="rows of made-up shards to start a training with")
    options = parser.parse_args()
    found: dict[str, Any] = {"load_before": os.getloadavg()}
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or rendered(Path(folder))
        source = ViewSource(ViewSourceConfig(batch_size=BATCH), RunFolders((data,), Path(folder) / "out"))
        found["turns"] = [turn(source, options) for _ in range(options.turns)]
        if options.rows:
            found["start"] = starts(Path(folder) / "many", options.rows)
    print(json.dumps(found | {"load_after": os.getloadavg()}))


def rendered(folder: Path) -> Path:
    """Shards of balls with a colour of its own at every vertex."""
    (folder / "meshes").mkdir()
    random = np.random.default_rng(0)
    for number in range(12):
        ball = trimesh.creation.icosphere(subdivisions=5)
        ball.vertices *= random.uniform(0.5, 1.0, 3) * random.uniform(0.97, 1.0, (len(ball.vertices), 1))
        ball.visual.vertex_colors = random.integers(0, 256, (len(ball.vertices), 4)) | [0, 0, 0, 255]
        ball.export(folder / "meshes" / f"ball_{number}.ply")
    ingest(
        folder_objects(folder / "meshes"),
        folder / "shards",
        RenderOptions(size=256, recolor=False, processes=1),
    )
    return folder / "shards"


def turn(source: ViewSource, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Each way of reading once; steps of the consumer are as long as the median batch in line."""
    count, workers = options.batches, options.workers
    numbers = range(count + WARM_UP)
    in_line = measured(thread_batches(source.batch, numbers, 0), count)
    step = in_line["median_wait_s"]
    return {
        "in_line": in_line,
        "thread": measured(thread_batches(source.batch, numbers, 1), count),
        "processes": measured(worker_batches(source.batch, numbers, workers, 2), count),
        "thread_with_steps": measured(thread_batches(source.batch, numbers, 1), count, step),
        "processes_with_steps": measured(worker_batches(source.batch, numbers, workers, 2), count, step),
    }


def measured(
    opened: AbstractContextManager[Iterator[Views]], count: int, step: float = 0
) -> dict[str, float]:
    """Objects and processor time, after some batches that warm up; what was read ahead in these counts for neither."""
    waits = []
    with opened as batches:
        for _ in range(WARM_UP):
            next(batches)
        used, started = processor_seconds(descendants(os.getpid())), time.perf_counter()
        for _ in range(count):
            asked = time.perf_counter()
            next(batches)
            waits.append(time.perf_counter() - asked)
            time.sleep(step)
        elapsed = time.perf_counter() - started
        used = processor_seconds(descendants(os.getpid())) - used
    return {
        "objects_per_s": round(BATCH * count / elapsed, 2),
        "cpu_s_per_object": round(used / (BATCH * count), 4),
        "median_wait_s": round(statistics.median(waits), 4),
        "longest_wait_s": round(max(waits), 4),
    }


def starts(folder: Path, rows: int) -> dict[str, Any]:
    """Wall-clock and processor seconds and megabytes of two starts: the first makes the table of rows."""
    folder.mkdir()
    write_rows(folder, rows)
    found = {}
    for name in ("first", "second"):
        program = [sys.executable, "-c", START, str(folder)]
        text = subprocess.run(program, check=True, capture_output=True, text=True).stdout
        found[name] = dict(zip(("wall_s", "cpu_s", "grown_mb"), map(float, text.split()), strict=True))
    return found


def write_rows(folder: Path, rows: int) -> None:
    """Shards of 40 objects of 38 views of a pixel or so."""
    azimuths = [360.0 * view / 38 for view in range(38)]
    cameras = orbit_cameras(azimuths, 10.0, width=8, height=8)
    pixels = np.zeros((8, 8, 4), np.uint8)
    cells = {
        "size": 8,
        "azimuths": azimuths,
        "elevations": [10.0] * 38,
        "ring": [view % 9 if view < 36 else -1 for view in range(38)],
        "camera_to_world": cameras.camera_to_world.flatten().tolist(),
        "intrinsics": cameras.intrinsics.flatten().tolist(),
        "rgba": [shard_schema.encode_image(pixels)] * 38,
        "normal": [shard_schema.encode_image(pixels[..., :3].copy())] * 38,
        "depth": [shard_schema.encode_depth(np.full((8, 8), 1.4))] * 38,
    }
    blank = shard_schema.ObjectInfo(
        object_id="", name="", noun="", captions=("",), source="made up", license="CC0", creator="nobody"
    ).columns()
    schema = shard_schema.table_schema()
    template = pa.Table.from_pylist([{**blank, **cells}] * 40, schema=schema)
    for shard, first in enumerate(tqdm(range(0, rows, 40), desc="write", unit="shard")):
        numbers = range(first, min(first + 40, rows))
        own = {
            "object_id": [f"made up/{number}" for number in numbers],
            "name": [f"object {number}" for number in numbers],
            "noun": [f"noun {number % 997}" for number in numbers],
            "captions": [[f"a thing of the number {number}"] for number in numbers],
            "split": ["test" if number % 10 == 9 else "train" for number in numbers],
        }
        table = template.slice(0, len(numbers))
        for name, values in own.items():
            place = schema.get_field_index(name)
            table = table.set_column(place, schema.field(name), pa.array(values, schema.field(name).type))
        shard_schema.write_shard(table, folder / f"objects-{shard:05d}.parquet")


if __name__ == "__main__":
    main()
