"""``diffsplat warmup``: compile the rasterizer ahead of its first use."""

import time


def command() -> None:
    """Compile the rasterizer for this machine and keep it on disk, for a quick first rendering."""
    from diffsplat.render import warmup

    started = time.perf_counter()
    warmup()
    print(f"The rasterizer is compiled ({time.perf_counter() - started:.1f} s).")
