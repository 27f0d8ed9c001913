"""Entry point: finds the verb, runs it, and turns refusals into one line and an exit code."""

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from diffsplat import __version__
from diffsplat.cli.errors import REFUSALS, describe

PROGRAM = "diffsplat"
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Verb:
    """A word of the command line.

    Args:
        summary: what it does, one line.
        module: where it is implemented.
    """

    summary: str
    module: str


VERBS: dict[str, Verb] = {
    "generate": Verb("descriptions or pictures to 3D Gaussian splats", "diffsplat.cli.generate"),
    "encode": Verb("prompts to a file that 'generate' reads", "diffsplat.cli.encode"),
    "models": Verb("list and download models", "diffsplat.cli.models"),
    "render": Verb("pictures and turntable videos of a splat file", "diffsplat.cli.render"),
    "convert": Verb("a splat file into another format", "diffsplat.cli.convert"),
    "serve": Verb("a page and an API that generate", "diffsplat.cli.serve"),
    "view": Verb("look at splat files in the browser", "diffsplat.cli.view"),
    "warmup": Verb("compile the rasterizer ahead of its first use", "diffsplat.cli.warmup"),
    "data": Verb("meshes to training views", "diffsplat.cli.data"),
    "train": Verb("train a stage, or all stages of the embedded model", "diffsplat.cli.train"),
    "evaluate": Verb("measure a model", "diffsplat.cli.evaluate"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 is success, 2 a request that was refused (one line on stderr says why), 130 an interruption.

    Args:
        argv: the words after ``diffsplat``; those of this process by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone; keep the interpreter from complaining when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except REFUSALS as error:
        return _refuse(describe(error))


def usage() -> str:
    """The text of ``diffsplat --help``."""
    width = max(map(len, VERBS))
    lines = [f"usage: {PROGRAM} [--help] [--version] VERB ...", ""]
    lines += ["Text and pictures to 3D Gaussian splats.", "", "verbs:"]
    lines += [f"  {name:{width}}  {verb.summary}" for name, verb in VERBS.items()]
    lines += ["", f"'{PROGRAM} VERB --help' explains a verb. For a start:", ""]
    lines += [f'  {PROGRAM} generate "a red armchair" --preview png']
    return "\n".join(lines)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"{PROGRAM} {__version__}")
        return 0
    name, *rest = words
    if name not in VERBS:
        return _refuse(f"unknown verb {name!r}, expected one of: {', '.join(VERBS)}")
    try:
        _run_verb(name, rest)
    except SystemExit as leaving:
        # tyro leaves this way after --help and after words that it cannot parse.
        return leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else EXIT_REFUSED
    return 0


def _run_verb(name: str, words: list[str]) -> None:
    import tyro

    module = importlib.import_module(VERBS[name].module)
    program = f"{PROGRAM} {name}"
    commands = getattr(module, "COMMANDS", None)
    if commands is None:
        tyro.cli(module.command, prog=program, args=words)
    else:
        default = getattr(module, "DEFAULT", None)
        if default and (not words or (words[0].startswith("-") and words[0] not in ("-h", "--help"))):
            words = [default, *words]
        tyro.extras.subcommand_cli_from_dict(
            commands, prog=program, description=VERBS[name].summary.capitalize() + ".", args=words
        )


def _refuse(reason: str) -> int:
    print(f"{PROGRAM}: error: {reason}", file=sys.stderr)
    return EXIT_REFUSED


if __name__ == "__main__":
    sys.exit(main())
