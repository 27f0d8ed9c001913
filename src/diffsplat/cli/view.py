"""``diffsplat view``: splat files in the browser."""

import sys
import threading
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from diffsplat.errors import InvalidInputError


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
    if not 0 <= arguments.port <= 65535:
        raise InvalidInputError(f"the port is {arguments.port}, expected 0 to 65535")
    from diffsplat.web.viewer_files import shown_files
    from diffsplat.web.viewer_server import ViewerServer

    with ViewerServer(shown_files(arguments.files), port=arguments.port) as server:
        print(server.url, flush=True)
        print("Press Ctrl-C to end.", file=sys.stderr)
        if arguments.browser:
            # Text-mode browsers do not return before they are left.
            threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)
