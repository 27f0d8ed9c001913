"""Entry point: finds the subcommand, runs it, and turns errors into one sentence and an exit code."""

import functools
import importlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from diffsplat import __version__
from diffsplat.cli.crash_log import write_crash_log
from diffsplat.errors import DiffSplatError, InvalidInputError, one_line

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
        sys.stdout.reconfigure(errors="surrogateescape")  # paths may hold bytes that are not valid text
    try:
        return _dispatch(arguments)
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has gone; keep the interpreter from complaining when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 (a bug, whatever its type)
        return _ended_by(error, arguments, debug=debug)


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
        raise InvalidInputError(f"unknown subcommand {name!r}, expected one of: {', '.join(SUBCOMMANDS)}")
    try:
        _parsed(name, rest)()
    except SystemExit as leaving:
        # tyro exits this way after --help and after arguments that it cannot parse.
        return (
            leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else EXIT_USER_ERROR
        )
    return 0


def _parsed(name: str, arguments: list[str]) -> Callable[[], None]:
    """The command that a command line asks for.

    Raises:
        SystemExit: after help was printed, or what is wrong with the arguments.
        ValueError: for options that a configuration refuses.
    """
    kept = io.StringIO()
    try:
        with redirect_stderr(kept):
            command = _parse(name, arguments)
    except SystemExit as leaving:
        refusal = _refusal(leaving)
        if refusal is not None:
            raise refusal from None
        if leaving.code:
            _speaker(name)(lambda: _parse(name, arguments))  # prints with the colours of a terminal
        raise
    print(kept.getvalue(), end="", file=sys.stderr)
    return command


def _refusal(leaving: SystemExit) -> DiffSplatError | None:
    """What a configuration said to its options, which tyro makes a box of that names the configuration's class."""
    cause: BaseException | None = leaving
    while cause is not None and not isinstance(cause, DiffSplatError):
        cause = cause.__context__
    return cause


def _parse(name: str, arguments: list[str]) -> Callable[[], None]:
    """The command that tyro makes of a command line; its words are tyro's."""
    import tyro

    from diffsplat.cli.option_help import CONFIG, RULES

    module = importlib.import_module(f"diffsplat.cli.{name}")
    program = f"{PROGRAM} {name}"
    commands = getattr(module, "COMMANDS", None)
    with RULES:
        if commands is None:
            return tyro.cli(_deferred(module.command), prog=program, args=arguments, config=CONFIG)
        default = getattr(module, "DEFAULT", None)
        bare = not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help"))
        return tyro.extras.subcommand_cli_from_dict(
            {word: _deferred(command) for word, command in commands.items()},
            prog=program,
            description=SUBCOMMANDS[name].capitalize() + ".",
            args=[default, *arguments] if default and bare else arguments,
            config=CONFIG,
        )


def _deferred(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """A command that is not run yet when its arguments are parsed."""

    @functools.wraps(command)
    def bound(*values: Any, **options: Any) -> Callable[[], None]:
        return functools.partial(command, *values, **options)

    return bound


def _concerns_argument(error: OSError, arguments: list[str]) -> bool:
    """Whether the system refuses a path that is on the command line, or one in a folder that is."""
    if error.filename is None:
        return False
    values = (value for argument in arguments for value in (argument, argument.partition("=")[2]) if value)
    path = Path(str(error.filename)).absolute()
    return not {Path(value).absolute() for value in values}.isdisjoint((path, *path.parents))


def _ended_by(error: Exception, arguments: list[str], *, debug: bool) -> int:
    """Say what ended the command; its exit code."""
    say = _speaker(*arguments[:1])
    if isinstance(error, DiffSplatError):
        if debug:
            traceback.print_exc()
        reason = one_line(error)
    elif isinstance(error, OSError) and _concerns_argument(error, arguments):
        reason = f"{error.strerror}: {str(error.filename)!r}"
    else:
        say(lambda: _report_bug(error, debug=debug))
        return EXIT_INTERNAL_ERROR
    say(lambda: print(f"{PROGRAM}: error: {reason}", file=sys.stderr))
    return EXIT_USER_ERROR


def _speaker(name: str = "") -> Callable[[Callable[[], Any]], None]:
    """Calls what prints an error: at once, or where a launcher started several processes of a training, in one."""
    if name == "train" and "RANK" in os.environ:
        from diffsplat.training.launched_errors import say_once

        return say_once
    return lambda say: say()


def _report_bug(error: Exception, *, debug: bool) -> None:
    sentence = f"{PROGRAM}: internal error: {type(error).__name__}: {one_line(error)}"
    log = None if debug else write_crash_log(error)
    if log is None:
        traceback.print_exception(error)
        print(sentence, file=sys.stderr)
    else:
        print(f"{sentence}; the traceback is in {log}, --debug prints it", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
