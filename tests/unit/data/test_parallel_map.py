"""Work on many items: order, failures, killed processes; the same on a Ray cluster."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from diffsplat.data.parallel_map import Failure, local_results
from diffsplat.errors import InvalidInputError, MissingPackageError


def squared(number: int) -> int:
    """Fails in every way that an item can."""
    match number:
        case 13:
            raise InvalidInputError("13 brings\nbad luck")
        case 17:
            raise AssertionError("surprise")
        case 19:
            os.kill(os.getpid(), signal.SIGKILL)
        case _:
            return number * number


EXPECTED = [
    16,
    Failure("13 brings bad luck"),
    25,
    Failure("AssertionError: surprise"),
    36,
]


def test_results_come_in_order_and_failures_in_their_place():
    assert list(local_results(squared, [4, 13, 5, 17, 6], 1)) == EXPECTED


@pytest.mark.slow
def test_a_killed_process_costs_its_item_alone():
    numbers = [4, 13, 19, 5, 17, 6]
    killed = Failure("the process that worked on it was killed, perhaps for lack of memory")
    assert list(local_results(squared, numbers, 2)) == [*EXPECTED[:2], killed, *EXPECTED[2:]]


def unavailable(_: int) -> int:
    raise MissingPackageError("needs that")


def test_what_is_not_installed_ends_everything_at_once():
    with pytest.raises(MissingPackageError):
        list(local_results(unavailable, [1, 2, 3, 4, 5], 1))


def once_killed(mark: Path, number: int) -> int:
    """Ends its process the first time that it is asked for 3."""
    if number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


class Adder:
    """Counts how often it was made, in files."""

    def __init__(self, folder: Path) -> None:
        (folder / f"made-{os.getpid()}").touch()
        self.folder = folder

    def __call__(self, number: int) -> int:
        return once_killed(self.folder / "killed", number) + 1


RAY = """
from functools import partial
from pathlib import Path
import test_parallel_map as tests
from diffsplat.data.parallel_map import ray_results, ray_worker_results
folder = Path()
print(list(ray_results(partial(tests.once_killed, folder.resolve() / "task"), range(8), "auto")))
print(list(ray_results(tests.squared, [4, 13, 19, 5], "auto")))
print(list(ray_worker_results(partial(tests.Adder, folder.resolve()), range(8), "auto")))
"""


@pytest.mark.slow
def test_a_killed_worker_of_ray_loses_nothing(tmp_path: Path):
    """In a process of its own, whose workers import this file."""
    pytest.importorskip("ray")
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2]), *sys.path])
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        subprocess.run(
            [sys.executable, "-c", RAY],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            timeout=600,
            env=os.environ | {"PYTHONPATH": paths},
            check=True,
        )
    first, second, third = (tmp_path / "out").read_text().splitlines()[-3:]
    assert first == str([n * n for n in range(8)])
    killed = Failure("the process that worked on it was killed, perhaps for lack of memory")
    assert second == str([16, Failure("13 brings bad luck"), killed, 25])
    assert third == str([n * n + 1 for n in range(8)])
    assert (tmp_path / "task").exists()
    assert (tmp_path / "killed").exists()
    assert len(list(tmp_path.glob("made-*"))) > 1, "a worker was made again"
