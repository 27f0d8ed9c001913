"""Runs of several processes on the CPU, started by torchrun or by accelerate launch."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

Launcher = Literal["torchrun", "accelerate"]
_LAUNCHERS: dict[Launcher, tuple[str, ...]] = {
    "torchrun": ("torch.distributed.run", "--standalone", "--nproc_per_node"),
    "accelerate": ("accelerate.commands.launch", "--multi_gpu", "--num_processes"),
}


def start_processes(count: int, *command: str, launcher: Launcher = "torchrun") -> subprocess.Popen[str]:
    """Start a script, or ``-m`` and a module, in some processes that know of each other."""
    return subprocess.Popen(
        [sys.executable, "-m", *_LAUNCHERS[launcher], str(count), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A shell that starts the tests in the background has them ignore SIGINT, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (nothing else runs)
    )


def run_processes(
    count: int,
    *command: str,
    during: Callable[[], None] | None = None,
    launcher: Launcher = "torchrun",
) -> tuple[int, str, str]:
    """Exit code, output and errors of such a run; ``during`` is called while it goes on."""
    with start_processes(count, *command, launcher=launcher) as running:
        try:
            if during is not None:
                during()
            output, errors = running.communicate(timeout=300)
        finally:
            running.kill()
    return running.returncode, output, errors


def sentences(errors: str) -> list[str]:
    """What the program itself says in its errors, without the launcher's report."""
    return [line for line in errors.splitlines() if line.startswith("diffsplat: ")]


def curve(out: Path) -> list[dict[str, float]]:
    """Metrics of a run without the clock."""
    clock = ("seconds", "samples_per_second")
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in entry.items() if key not in clock} for entry in entries]
