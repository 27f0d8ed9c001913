"""Processor time of processes and of those that they started."""

import os
from pathlib import Path


def processes() -> dict[int, list[bytes]]:
    """Fields of ``/proc/PID/stat`` from the third one on, of every process."""
    numbers = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return {number: fields for number in numbers if len(fields := _fields(number)) > 14}


def descendants(ancestor: int) -> set[int]:
    """A process, those that it started, those that they started, and so on."""
    parents = {number: int(fields[1]) for number, fields in processes().items()}
    found, before = {ancestor}, set[int]()
    while found != before:
        before = set(found)
        found |= {number for number, parent in parents.items() if parent in before}
    return found


def processor_seconds(numbers: set[int]) -> float:
    """Of processes, and of those that ended and were waited for by them."""
    ticks = sum(
        int(value) for number, fields in processes().items() if number in numbers for value in fields[11:15]
    )
    return ticks / os.sysconf("SC_CLK_TCK")


def _fields(number: int) -> list[bytes]:
    try:
        return Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []
