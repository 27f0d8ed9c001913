"""Two trainings never write to one folder, and a dead one does not keep it."""

import subprocess
import sys
from pathlib import Path

import pytest

from diffsplat.errors import InvalidInputError
from diffsplat.training.run_lock import locked_run

HOLDER = """
import sys, time
from pathlib import Path
from diffsplat.training.run_lock import locked_run
with locked_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_run_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    out = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(out)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InvalidInputError, match="another training is running"), locked_run(out):
            pass
        with locked_run(tmp_path / "other"):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with locked_run(out), pytest.raises(InvalidInputError), locked_run(out):
        pass
    with locked_run(out):
        pass
