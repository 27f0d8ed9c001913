"""Entry point: finds the subcommand, runs it, and turns errors into one sentence and an exit code."""

import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from diffsplat import __version__
from diffsplat.cli.crash_log import write_crash_log
from diffsplat.errors import DiffSplatError, one_line

PROGRAM = "diffsplat"
EXIT_INTERNAL_ERROR = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


SUBCOMMANDS: dict[str, str] = {
    "generate": "prompts or images to 3D Gaussian splats",
    "encode": "prompts to a file that 'generate' reads",
    "reconstruct": "four views to 3D Gaussian splats, or to latents and back",
    "elevation": "how far above the horizon an image was taken from",
    "models": "list and download models",
    "render": "images and turntable videos of a splat file",
    "mesh": "splats to a closed, textured mesh",
    "convert": "a splat file into another format",
    "serve": "a web page and an API that generate",
    "view": "look at splat files in the browser",
    "warmup": "compile the rasterizer ahead of its first use",
    "data": "meshes to training views",
    "train": "train a stage, or all stages of the embedded model",
    "evaluate": "measure a model",
}
"""What each subcommand does; the module of the same name in this package implements it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 is success, 1 an internal error (a log file holds the traceback), 2 an error that the user can put right
    (one line on stderr says how), 130 an interruption.

    Args:
        argv: the arguments after ``diffsplat``; those of this process by default.
    """
    arguments, debug = _split_debug(list(sys.argv[1:] if argv is None else argv))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # paths are printed whose bytes are no text
    try:
        return _dispatch(arguments)
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has gone; keep the interpreter from complaining when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except DiffSplatError as error:
        if debug:
            traceback.print_exc()
        return _fail(one_line(error))
    except Exception as error:  # noqa: BLE001 (a bug, whatever its type)
        if isinstance(error, OSError) and _concerns_argument(error, arguments):
            return _fail(f"{error.strerror}: {str(error.filename)!r}")
        return _internal_error(error, debug=debug)


def usage() -> str:
    """The text of ``diffsplat --help``."""
    width = max(map(len, SUBCOMMANDS))
    lines = [f"usage: {PROGRAM} [--help] [--version] [--debug] SUBCOMMAND ...", ""]
    lines += ["Text and images to 3D Gaussian splats.", "", "subcommands:"]
    lines += [f"  {name:{width}}  {summary}" for name, summary in SUBCOMMANDS.items()]
    lines += [
        "",
        f"'{PROGRAM} SUBCOMMAND --help' explains a subcommand; --debug prints the traceback of errors.",
    ]
    lines += ["To start:", "", f'  {PROGRAM} generate "a red armchair" --preview png']
    return "\n".join(lines)


def _split_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """The arguments without ``--debug``, and whether it was there; what follows ``--`` is left alone."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [argument for argument in arguments[:end] if argument != "--debug"]
    return options + arguments[end:], len(options) < end


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"{PROGRAM} {__version__}")
        return 0
    name, *rest = arguments
    if name not in SUBCOMMANDS:
        return _fail(f"unknown subcommand {name!r}, expected one of: {', '.join(SUBCOMMANDS)}")
    try:
        _run(name, rest)
    except SystemExit as leaving:
        # tyro exits this way after --help and after arguments that it cannot parse.
        return (
            leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else EXIT_USER_ERROR
        )
    return 0


def _run(name: str, arguments: list[str]) -> None:
    import tyro

    from diffsplat.cli.option_help import CONFIG, RULES

    module = importlib.import_module(f"diffsplat.cli.{name}")
    program = f"{PROGRAM} {name}"
    commands = getattr(module, "COMMANDS", None)
    with RULES:
        if commands is None:
            tyro.cli(module.command, prog=program, args=arguments, config=CONFIG)
            return
        default = getattr(module, "DEFAULT", None)
        bare = not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help"))
        tyro.extras.subcommand_cli_from_dict(
            commands,
            prog=program,
            description=SUBCOMMANDS[name].capitalize() + ".",
            args=[default, *arguments] if default and bare else arguments,
            config=CONFIG,
        )


def _concerns_argument(error: OSError, arguments: list[str]) -> bool:
    """Whether the system refuses a path that stands on the command line, or one in a folder that does."""
    if error.filename is None:
        return False
    values = (value for argument in arguments for value in (argument, argument.partition("=")[2]) if value)
    path = Path(str(error.filename)).absolute()
    return not {Path(value).absolute() for value in values}.isdisjoint((path, *path.parents))


def _fail(reason: str) -> int:
    print(f"{PROGRAM}: error: {reason}", file=sys.stderr)
    return EXIT_USER_ERROR


def _internal_error(error: Exception, *, debug: bool) -> int:
    sentence = f"{PROGRAM}: internal error: {type(error).__name__}: {one_line(error)}"
    log = None if debug else write_crash_log(error)
    if log is None:
        traceback.print_exception(error)
        print(sentence, file=sys.stderr)
    else:
        print(f"{sentence}; the traceback is in {log}, --debug prints it", file=sys.stderr)
    return EXIT_INTERNAL_ERROR


if __name__ == "__main__":
    sys.exit(main())
