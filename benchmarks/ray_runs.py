"""Rendering and generating on a Ray cluster of this machine against local runs: the same files, kills, and time.

    python benchmarks/ray_runs.py --objects 200 --workers 2 --folder runs

Each step runs the command line in a process of its own, on a cluster that was started before it; times are those of
the commands, and processor times leave out what workers did before them. Then a worker is killed in the middle of
another run on Ray, and its driver, and the same command is given again. The last line on stdout is a JSON object. On a
machine that is very busy Ray itself ends while it starts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DIFFSPLAT = [sys.executable, "-m", "diffsplat.cli.main"]
QUIET = {
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_raylet_start_wait_time_s": "600",
    "RAY_agent_register_timeout_ms": "600000",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, required=True, help="new folder for everything")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--only", choices=["render", "generate"])
    parser.add_argument("--no-kills", action="store_true", help="only compare times and files")
    parser.add_argument("--mesh-faces", type=int, default=3_000, help="of each mesh, about")
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    runs = {"render": rendering, "generate": generating}
    found: dict[str, Any] = {"objects": options.objects, "load_before": os.getloadavg()}
    for name in runs if options.only is None else [options.only]:
        local, on_ray, contents = runs[name](options)
        found[name] = compared(options, options.folder / name, local, on_ray, contents)
    print(json.dumps(found | {"load_after": os.getloadavg()}))


Command = Callable[[Path], list[str]]
Contents = Callable[[Path], dict[str, Any]]


def rendering(options: argparse.Namespace) -> tuple[Command, Command, Contents]:
    """Commands that render meshes, and the bytes of the shards."""
    meshes = options.folder / "meshes"
    write_meshes(meshes, options.objects, options.mesh_faces)

    def command(out: Path) -> list[str]:
        return ["data", "render", str(meshes), "--out", str(out), "--size", "64", "--no-recolor"]

    def contents(out: Path) -> dict[str, Any]:
        return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}

    return lambda out: [*command(out), "--processes", str(options.workers)], command, contents


def generating(options: argparse.Namespace) -> tuple[Command, Command, Contents]:
    """Commands that generate objects of prompts, and what their files hold but the seconds that they took."""
    prompts = options.folder / "prompts.txt"
    prompts.write_text("".join(f"a chair of the number {number}\n" for number in range(options.objects)))

    def command(out: Path) -> list[str]:
        words = ["generate", "--prompts", str(prompts), "--output", str(out), "--sharded", "--part", "4"]
        return [*words, "--model", options.model, "--steps", "1", "--format", ".splat", "--device", "cpu"]

    def contents(out: Path) -> dict[str, Any]:
        files = {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}
        return {name: timeless(path) for name, path in files.items()}

    return command, command, contents


def timeless(path: Path) -> Any:
    """Content of a file, without how long its objects took."""
    if path.suffix == ".json":
        return {name: value for name, value in json.loads(path.read_text()).items() if name != "seconds"}
    if path.suffix == ".parquet":
        from pyarrow import parquet

        return parquet.read_table(path).drop_columns(["seconds"]).to_pylist()
    return path.read_bytes()


def write_meshes(folder: Path, count: int, faces: int) -> None:
    import trimesh

    folder.mkdir()
    numbers = random.Random(0)
    for number in range(count):
        sides = [numbers.uniform(0.3, 1.0) for _ in range(3)]
        mesh = trimesh.creation.box(sides)
        while len(mesh.faces) < faces:
            mesh = mesh.subdivide()
        mesh.visual.vertex_colors = [[numbers.randrange(256) for _ in range(3)] + [255]] * len(mesh.vertices)
        mesh.export(folder / f"box_{number}.ply")


def compared(
    options: argparse.Namespace, folder: Path, local: Command, on_ray: Command, contents: Contents
) -> dict[str, Any]:
    """Times of both, whether their files are the same, and what kills changed."""
    folder.mkdir()
    found: dict[str, Any] = {"local": timed(local(folder / "local"))}
    expected = contents(folder / "local")
    with cluster(options.workers) as (address, head):
        before = seconds_of_session(head)
        found["ray"] = timed([*on_ray(folder / "ray"), "--ray", address])
        found["ray"]["cpu_s"] += seconds_of_session(head) - before
        found["same_files"] = contents(folder / "ray") == expected
        if not options.no_kills:
            found |= killed([*on_ray(folder / "killed"), "--ray", address], folder / "killed", head)
            found["same_files_after_kills"] = contents(folder / "killed") == expected
    found["files"] = len(expected)
    return found


def timed(command: list[str]) -> dict[str, float]:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(DIFFSPLAT + command, check=True, stdout=sys.stderr, env=os.environ | QUIET)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": time.perf_counter() - started, "cpu_s": used}


@contextmanager
def cluster(workers: int) -> Iterator[tuple[str, int]]:
    """Address and process of a cluster that is ready; everything of it ends with the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["start", "--head", "--block", f"--port={port}", f"--num-cpus={workers}", "--num-gpus=0"]
    words += ["--include-dashboard=false", "--disable-usage-stats", "--node-ip-address=127.0.0.1"]
    program = [str(Path(sys.executable).with_name("ray")), *words]
    environment = os.environ | QUIET
    head = subprocess.Popen(program, stdout=sys.stderr, start_new_session=True, env=environment)
    address = f"127.0.0.1:{port}"
    try:
        probe = [sys.executable, "-c", f"import ray; ray.init(address={address!r}, log_to_driver=False)"]
        until(
            lambda: (
                subprocess.run(probe, stderr=subprocess.DEVNULL, env=environment, check=False).returncode == 0
            )
        )
        yield address, head.pid
    finally:
        for pid in session(head.pid):
            end(pid)
        head.wait()


def killed(command: list[str], out: Path, head: int) -> dict[str, Any]:
    """Kill a worker in the middle of a run, then its driver, and give the same command again."""
    driver = subprocess.Popen(DIFFSPLAT + command, stdout=sys.stderr, env=os.environ | QUIET)
    until(lambda: busy_workers(head) and (out.is_dir() or driver.poll() is not None))
    victim = busy_workers(head)[0]
    end(victim)
    until(lambda: any(pid != victim for pid in busy_workers(head)) or driver.poll() is not None)
    until(lambda: driver.poll() is not None or finished(out))
    was_running = driver.poll() is None
    driver.kill()
    driver.wait()
    there = {path: path.stat().st_mtime_ns for path in finished(out)}
    subprocess.run(DIFFSPLAT + command, check=True, stdout=sys.stderr, env=os.environ | QUIET)
    kept = sum(path.stat().st_mtime_ns == before for path, before in there.items())
    return {"driver_was_running": was_running, "files_before_restart": len(there), "of_these_untouched": kept}


def finished(out: Path) -> list[Path]:
    """Shards, or objects of a list."""
    return [*out.glob("objects-*.parquet"), *out.glob("[0-9]*/*.splat")]


def busy_workers(head: int) -> list[int]:
    """Processes of the cluster that work on an item or wait for one with their model."""
    names = {pid: Path(f"/proc/{pid}/cmdline") for pid in session(head)}
    return [
        pid for pid, path in names.items() if b"ray::_called" in read(path) or b"ray::_Worker" in read(path)
    ]


def session(head: int) -> list[int]:
    """Processes that the cluster's first one started."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if len(parts := stat(pid)) > 3 and int(parts[3]) == head]


def seconds_of_session(head: int) -> float:
    """Processor time of these and of those that have ended."""
    ticks = sum(int(value) for pid in session(head) for value in stat(pid)[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def stat(pid: int) -> list[bytes]:
    """Fields of a process from the third one on."""
    return read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def until(condition: Callable[[], object]) -> None:
    """Wait, for ten minutes at most."""
    for _ in range(6_000):
        if condition():
            return
        time.sleep(0.1)
    raise TimeoutError("waited ten minutes in vain")


if __name__ == "__main__":
    main()
