"""Two trainings never write to one folder, and a dead one does not keep it."""

import subprocess
import sys
from pathlib import Path

import pytest

from diffsplat.errors import InvalidInputError
from diffsplat.training.run_lock import locked_run
from diffsplat.training.run_processes import Processes

HOLDER = """
import sys, time
from pathlib import Path
from diffsplat.training.run_lock import locked_run
from diffsplat.training.run_processes import Processes
with locked_run(Path(sys.argv[1]), Processes("auto")):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_run_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    out, processes = tmp_path / "run", Processes("auto")
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(out)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(InvalidInputError, match="another training is running"),
            locked_run(out, processes),
        ):
            pass
        with locked_run(tmp_path / "other", processes):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with locked_run(out, processes), pytest.raises(InvalidInputError), locked_run(out, processes):
        pass
    with locked_run(out, processes):
        pass
