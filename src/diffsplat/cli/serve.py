"""``diffsplat serve``: a web page and an API that generate."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from diffsplat.cli.option_help import Flag, option
from diffsplat.errors import InvalidInputError, optional_package
from diffsplat.io.user_cache import user_cache
from diffsplat.pipelines.model_opening import OpeningOptions
from diffsplat.web.host_and_token_guard import is_loopback
from diffsplat.web.server_limits import Limits

if TYPE_CHECKING:
    import socket

    from diffsplat.web.job_queue import JobKeeper

DEFAULT_PORT = 7860
TOKEN_VARIABLE = "DIFFSPLAT_TOKEN"


@dataclass(frozen=True)
class ServeArguments:
    """Options of ``diffsplat serve``."""

    model: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME|FOLDER ...")] = ("mini",)
    """Models to offer, the first by default: mini, a model folder, or a released backbone, with
    variants after colons (sd15, sd15:image, FOLDER:depth, sd15:depth:canny)."""
    host: Annotated[str, tyro.conf.arg(metavar="ADDRESS")] = "127.0.0.1"
    """Address to listen on; any but a loopback address lets other machines in."""
    port: Annotated[int, tyro.conf.arg(metavar="N")] = DEFAULT_PORT
    """Port; 0 takes a free one."""
    token: Annotated[str | None, option("TEXT", f"(default: the variable {TOKEN_VARIABLE})")] = None
    """Token that clients send as 'Authorization: Bearer TEXT'. Other users of this machine can see the command
    line, but not the variable."""
    allowed_host: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Names that the server is reached by, such as that of a proxy. Others are refused, because any page can point
    its own name here; without a token, a server beyond this machine answers to addresses and these names only."""
    results: Annotated[Path | None, option("FOLDER", "(default: ~/.cache/diffsplat/results/PORT)")] = None
    """Folder where finished jobs are kept, so that they outlive the server."""
    ephemeral: Flag = False
    """Keep finished jobs in memory only; so does a server on port 0 without --results."""
    opening: Annotated[OpeningOptions, tyro.conf.arg(name="")] = field(default_factory=OpeningOptions)
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)


def command(arguments: Annotated[ServeArguments, tyro.conf.arg(name="")]) -> None:
    """Serve a web page that generates objects, and the API behind it, until Ctrl-C is pressed."""
    for name in ("fastapi", "python_multipart"):
        with optional_package("the server", name, "serve"):
            importlib.import_module(name)
    token = _token(arguments)
    from diffsplat.web.server_process import listen

    with listen(arguments.host, arguments.port) as listener:
        _serve(arguments, listener, token)


def _serve(arguments: ServeArguments, listener: socket.socket, token: str | None) -> None:
    from diffsplat.web.generation_app import create_app
    from diffsplat.web.generation_service import Service
    from diffsplat.web.model_worker import load_models
    from diffsplat.web.server_process import serve, url_of

    keeper = _keeper(arguments)
    generator = load_models(arguments.model, arguments.opening)
    _warn(arguments.host, token)
    print(url_of(listener, arguments.host), flush=True)
    print("The API is documented at /api/docs; press Ctrl-C to end.", file=sys.stderr, flush=True)
    service = Service(generator, arguments.limits, keeper)
    app = create_app(
        service, token=token, loopback_only=is_loopback(arguments.host), allowed_hosts=arguments.allowed_host
    )
    serve(app, listener, on_exit=service.stop, limits=service.limits)


def _keeper(arguments: ServeArguments) -> JobKeeper | None:
    """What keeps finished jobs; None for memory alone."""
    if arguments.ephemeral:
        if arguments.results is not None:
            raise InvalidInputError("--results and --ephemeral were given, expected one of them")
        return None
    if arguments.results is None and arguments.port == 0:
        return None
    from diffsplat.web.result_store import ResultStore

    return ResultStore(arguments.results or user_cache() / "results" / str(arguments.port))


def _token(arguments: ServeArguments) -> str | None:
    token = os.environ.get(TOKEN_VARIABLE) if arguments.token is None else arguments.token
    if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token != ""):
        raise InvalidInputError(
            "the token is empty or has odd characters, expected printable ASCII without spaces around"
        )
    return token


def _warn(host: str, token: str | None) -> None:
    if is_loopback(host):
        return
    who = "anyone who reaches it may use it" if token is None else "it asks for the token"
    advice = ", expected --token in any network that you do not trust" if token is None else ""
    print(
        f"diffsplat: warning: listening on {host}, which other machines can reach, without encryption: {who}{advice}",
        file=sys.stderr,
        flush=True,
    )
