"""Downloading released weights from the Hugging Face Hub. Needs no torch.

The files keep their paths in the repository, so that a folder filled by hand works the same.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from pathlib import Path, PurePosixPath
from typing import cast

from diffsplat.errors import AccessDeniedError, InvalidInputError, UnreachableError
from diffsplat.io.file_access import make_folder
from diffsplat.io.json_files import read_json, write_json
from diffsplat.pretrained.release_catalogue import RELEASE_REPOSITORY, Component
from diffsplat.pretrained.release_layout import (
    PICKLES,
    choose_weights,
    is_index,
    newest_iteration,
    repository_folder,
)

ENDPOINT_VARIABLE = "HF_ENDPOINT"
"""Environment variable that names a mirror of the hub."""

REVISIONS_FILE = "revisions.json"
"""In the folder of the weights: the commit of every repository that they were downloaded from."""

_HUB = "https://huggingface.co"
_UNPINNED = "main"
_SETTINGS = (".json", ".txt", ".model")


@dataclass(frozen=True)
class Selection:
    """Files of one repository at one commit.

    Args:
        repository: Hugging Face repository.
        revision: full hash of the commit.
        folder: local folder that the files are put into.
        sizes: bytes of every file by its path in the repository.
        gated: whether the repository asks for consent to a licence.
    """

    repository: str
    revision: str
    folder: Path
    sizes: Mapping[str, int]
    gated: bool = False

    @property
    def absent(self) -> dict[str, int]:
        """Those of :attr:`sizes` that are not here in full."""
        return {
            name: size
            for name, size in self.sizes.items()
            if not (path := self.folder / name).is_file() or path.stat().st_size != size
        }


def look_up(
    components: Sequence[Component], weights: Path, *, revision: str | None = None
) -> tuple[Selection, ...]:
    """Ask the hub which files components consist of; nothing is fetched.

    Args:
        components: what is wanted.
        weights: folder of the release folders.
        revision: branch, tag or commit of the *release* repository; by default that of the first download into
            this folder, else the newest. Image-diffusion models always stay at that of their first download.

    Raises:
        ConnectionError: when the hub cannot be reached.
        PermissionError: when a repository is gated.
        ValueError: when a repository, a revision or a folder does not exist.
    """
    selections: list[Selection] = []
    for chosen, commit, files in _listings(components, weights, revision):
        repository = chosen[0].repository
        sizes = {name: files[name] for component in chosen for name in needed_files(files, component)}
        folder = repository_folder(weights, repository)
        selections.append(Selection(repository, commit, folder, sizes, chosen[0].gated))
    return tuple(selections)


def download_sizes(components: Sequence[Component], weights: Path) -> dict[Component, int]:
    """Bytes of every component on the hub; arguments and errors of :func:`look_up`."""
    return {
        component: sum(files[name] for name in needed_files(files, component))
        for chosen, _, files in _listings(components, weights)
        for component in chosen
    }


def fetch(selection: Selection, weights: Path) -> None:
    """Fetch what is not here yet, with a progress bar on stderr; an interrupted download is resumed.

    Args:
        selection: from :func:`look_up`.
        weights: folder of the release folders, where the commit is recorded.

    Raises:
        ConnectionError: when the hub cannot be reached, or the connection breaks.
        PermissionError: when the repository is gated.
        ValueError: when the disk is too small.
    """
    from huggingface_hub import snapshot_download

    make_folder(selection.folder)
    # Recorded before the first file, so that an interrupted download goes on with the same commit.
    _record_revision(weights, selection)
    _require_space(selection)
    # The client takes a file that it once fetched for whole, whatever became of it.
    for name in selection.absent:
        (selection.folder / name).unlink(missing_ok=True)
    with _explained(selection.repository, gated=selection.gated):
        snapshot_download(
            selection.repository,
            revision=selection.revision,
            local_dir=selection.folder,
            allow_patterns=[escape(name) for name in selection.sizes],
            endpoint=_endpoint(),
        )
    left = selection.absent
    if left:
        raise UnreachableError(
            f"{next(iter(left))} of {selection.repository} did not arrive in full, run the same command again to go on"
        )


def needed_files(files: Mapping[str, int], component: Component) -> list[str]:
    """The files of a component among all of its repository.

    Of a release only the highest iteration. Weights only as safetensors: under the name that loaders look for and in
    full precision where there is a choice, and whole rather than in shards.

    Raises:
        ValueError: when the repository does not hold it.
    """
    folder = PurePosixPath(component.folder)
    if component.released:
        checkpoints = folder / "checkpoints"
        iterations = {path.parts[2] for path in map(PurePosixPath, files) if checkpoints in path.parents}
        folder = checkpoints / (newest_iteration(iterations) or "")
        folder = folder / component.part if component.part else folder
    names = [path.name for path in map(PurePosixPath, files) if path.parent == folder]
    stems = ("diffusion_pytorch_model", "model", None)
    chosen = next(filter(None, (choose_weights(names, stem) for stem in stems)), [])
    settings = [name for name in names if name.endswith(_SETTINGS) and not is_index(name)]
    if component.parameters and not chosen:
        pickled = next((name for name in names if name.endswith(PICKLES)), None)
        reason = f"only pickled weights ({pickled})" if pickled else "no weights"
        raise InvalidInputError(
            f"the repository {component.repository!r} holds {reason} in {str(folder)!r}, expected safetensors"
        )
    if not chosen and not settings:
        raise InvalidInputError(f"the repository {component.repository!r} has no folder {str(folder)!r}")
    return [str(folder / name) for name in sorted({*chosen, *settings})]


def _listings(
    components: Sequence[Component], weights: Path, revision: str | None = None
) -> Iterator[tuple[list[Component], str, dict[str, int]]]:
    """For every repository: what is wanted of it, its commit, and the sizes of all its files."""
    recorded = _read_revisions(weights)
    if revision:
        recorded[RELEASE_REPOSITORY] = revision
    for repository in dict.fromkeys(component.repository for component in components):
        chosen = [component for component in components if component.repository == repository]
        yield chosen, *_list_files(chosen[0], recorded.get(repository, _UNPINNED))


def _list_files(component: Component, revision: str) -> tuple[str, dict[str, int]]:
    """Commit of a revision and the sizes of all files of a repository."""
    from huggingface_hub import HfApi

    with _explained(component.repository, gated=component.gated, revision=revision):
        info = HfApi(endpoint=_endpoint()).model_info(
            component.repository, revision=revision, files_metadata=True
        )
    if info.sha is None:
        raise UnreachableError(f"{_endpoint() or _HUB} does not give the commit of {component.repository}")
    return info.sha, {entry.rfilename: entry.size or 0 for entry in info.siblings or ()}


def _endpoint() -> str | None:
    """Address of a mirror, read at every call; None for the hub itself."""
    return os.environ.get(ENDPOINT_VARIABLE, "").rstrip("/") or None


def _require_space(selection: Selection) -> None:
    needed, free = sum(selection.absent.values()), shutil.disk_usage(selection.folder).free
    if needed > free:
        raise InvalidInputError(
            f"{selection.repository} needs {needed / 1e9:.1f} GB, but {str(selection.folder)!r} has {free / 1e9:.1f} "
            "GB left: free some, or choose another folder with --weights"
        )


def _read_revisions(weights: Path) -> dict[str, str]:
    path = weights / REVISIONS_FILE
    if not path.is_file():
        return {}
    content = read_json(path, "delete it to fetch the newest")
    return {str(repository): str(revision) for repository, revision in content.items()}


def _record_revision(weights: Path, selection: Selection) -> None:
    make_folder(weights)
    content = {**_read_revisions(weights), selection.repository: selection.revision}
    write_json(content, weights / REVISIONS_FILE)


@contextmanager
def _explained(repository: str, *, gated: bool, revision: str = "") -> Iterator[None]:
    """Turn what the hub's client raises into one sentence that says what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub = _endpoint() or _HUB
    # Errors of the HTTP client that the hub's client is built on have their base in common with its own.
    transport = cast(type[Exception], HfHubHTTPError.__bases__[0])
    try:
        yield
    except RevisionNotFoundError as error:
        raise InvalidInputError(f"the repository {repository!r} has no revision {revision!r}") from error
    except (RepositoryNotFoundError, HfHubHTTPError) as error:
        status = error.response.status_code if error.response is not None else 0
        if isinstance(error, GatedRepoError) or (gated and status in (401, 403)):
            raise AccessDeniedError(
                f"{repository} is gated: accept its licence at {_HUB}/{repository} and run 'hf auth login' (or set "
                "HF_TOKEN), then run this command again"
            ) from error
        if isinstance(error, RepositoryNotFoundError):
            raise InvalidInputError(f"{hub} has no repository {repository!r}") from error
        raise UnreachableError(
            f"{hub} answers with HTTP status {status}, run the same command again later to go on"
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise _unreachable(hub, repository) from error
    except transport as error:
        raise _unreachable(hub, repository) from error


def _unreachable(hub: str, repository: str) -> ConnectionError:
    return UnreachableError(
        f"cannot reach {hub} for {repository}: check the network, set {ENDPOINT_VARIABLE} to a mirror, or copy the "
        "folders from elsewhere and name them with --weights; a download goes on where it stopped"
    )
