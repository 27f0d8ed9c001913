"""``diffsplat view``: splat files in the browser."""

import sys
import threading
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

HOST = "127.0.0.1"


@dataclass(frozen=True)
class ViewArguments:
    """Options of ``diffsplat view``."""

    files: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILE", help_behavior_hint="")
    ] = ()
    """Splat files, shown side by side; more can be dropped on the page."""
    port: Annotated[int, tyro.conf.arg(metavar="PORT")] = 0
    """Port on this machine; 0 takes a free one."""
    browser: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = True
    """Open the page in the default browser."""


def command(arguments: Annotated[ViewArguments, tyro.conf.arg(name="")]) -> None:
    """Look at splat files in the browser, from all sides, without internet.

    Prints the address of the page and serves it to this machine until Ctrl-C is pressed.
    """
    from diffsplat.web.server_process import listen, serve, url_of
    from diffsplat.web.viewer_app import create_viewer_app, local_files

    app = create_viewer_app(local_files(arguments.files))
    with listen(HOST, arguments.port) as listener:
        url = url_of(listener, HOST)
        print(url, flush=True)
        print("Press Ctrl-C to end.", file=sys.stderr, flush=True)
        if arguments.browser:
            # Text-mode browsers do not return before they are left.
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        serve(app, listener)
