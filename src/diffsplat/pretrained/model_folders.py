"""The folder of the embedded model and of trained ones: its components and ``model_index.json``. Needs no torch."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from math import inf
from pathlib import Path
from typing import Any, Self, get_args

import tyro

import diffsplat
from diffsplat.errors import InvalidInputError, MissingFileError, require
from diffsplat.io.json_files import read_json, write_json
from diffsplat.pretrained.release_catalogue import BACKBONES, ControlKind, Prediction
from diffsplat.pretrained.release_layout import choose_weights

DEFAULT_STEPS = 20
DEFAULT_GUIDANCE = 4.0
DEFAULT_SHIFT = 6.0
"""Shift of the noise levels towards noise: a 16,384-number latent decides what it shows above level 0.93."""
DEFAULT_ELEVATION_DEG = 10.0

INDEX_FILE = "model_index.json"
PIPELINE_NAME = "DiffSplatPipeline"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"

EMBEDDED_MODELS = ("mini",)

TEXT_COMPONENTS = ("denoiser", "autoencoder", "text_encoder", "scheduler")
"""What a model generates from text with, each in a folder of its name; a refiner, a denoiser of text alone and a
few-step solver may come with them."""

TEXT_DENOISER = "text_denoiser"
"""Component of a model that makes the nouns in its own ``words.json`` from text, better than the denoiser does."""

FEW_STEP_SOLVER = "few_step_solver"

CONDITION_ENCODER = "condition_encoder"
"""Component of a model whose one denoiser also takes images and every kind of control map."""

IMAGE_COMPONENTS = ("image_denoiser", "image_encoder", "autoencoder", "text_encoder", "scheduler")
"""What a model generates from images with; an elevation estimator may come with them."""

_OWN_CLASSES = (
    *("MultiViewPixArt", "ComponentAutoencoder", "SplatVAE", "TextEncoder", "ClipT5Encoder"),
    *("ConditionEncoder", "ElevationEstimator", "MiniElevationEstimator", "FewStepSolver"),
)
_SCHEDULER_FILE = "scheduler_config.json"
_CONFIG_FILE = "config.json"
_STATE_FILE = "model.safetensors"


@dataclass(frozen=True)
class SamplingDefaults:
    """What a model is sampled with unless the caller says otherwise.

    Args:
        steps: denoising steps.
        guidance: classifier-free guidance scale.
        guided_below: noise level, 0 to 1, below which the denoiser is guided; 1 for every level.
        elevation_deg: degrees above the horizon of the generated views.
        prediction: what the denoiser predicts.
        smoothing: pixels that generated surfaces are smoothed by, as of
            :func:`~diffsplat.pipelines.surface_smoothing.clean_surfaces`, which also re-lays the Gaussians;
            0 leaves them as they are decoded.
        refined_below: noise level, 0 to 1, below which a model's refiner takes over from its denoiser.
        refiner_guidance: guidance scale of the refiner; up to 1, or where the caller asks for no guidance, none.
        projection: whether the first view takes over what an image or a control map shows of it, see
            :class:`~diffsplat.pipelines.first_view_projection.KnownView`.

    Raises:
        ValueError: for anything but a number or a truth value where one is expected, a guidance scale or a noise level
            that is out of range, or a level where the prediction has none.
    """

    steps: int = DEFAULT_STEPS
    guidance: float = DEFAULT_GUIDANCE
    guided_below: float = 1.0
    elevation_deg: float = DEFAULT_ELEVATION_DEG
    prediction: tyro.conf.Suppress[Prediction] = "latents"  # of the network, nothing that a user could choose
    smoothing: float = 0.0
    refined_below: float = 0.0
    refiner_guidance: float = 1.0
    projection: bool = False

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name not in ("prediction", "projection"):
                require(is_number(value), name, repr(value), "a number")
        require(isinstance(self.projection, bool), "projection", repr(self.projection), "true or false")
        below = self.guided_below
        require(0 <= below <= 1, "guided_below", below, "a noise level from 0 to 1")
        of_all = self.flow_matched or below == 1
        require(of_all, "guided_below", below, f"1 for the prediction {self.prediction!r}")
        guidance = self.refiner_guidance
        require(0 <= guidance < inf, "refiner_guidance", guidance, "a finite number of at least 0")

    @property
    def flow_matched(self) -> bool:
        """Whether the denoiser follows a flow: its noise levels are then shares of noise, from 0 to 1."""
        return self.prediction in ("latents", "flow")

    @classmethod
    def from_index(cls, index: Mapping[str, Any]) -> Self:
        """Read the entries of a model index; those that are absent keep their value."""
        return cls(**{entry.name: index[entry.name] for entry in fields(cls) if entry.name in index})


def find_model(model: str | Path) -> Path:
    """Folder of an embedded model by name, or of a model on disk by path.

    Raises:
        ValueError: for a name that is neither.
        FileNotFoundError: for a folder without a model.
    """
    if isinstance(model, str) and model in EMBEDDED_MODELS:
        folder = Path(str(files("diffsplat"))) / "weights" / model
    else:
        folder = Path(model)
        if not folder.is_dir():
            known = ", ".join((*EMBEDDED_MODELS, *BACKBONES))
            raise InvalidInputError(
                f"unknown model {str(model)!r}, expected one of: {known}; or a model folder"
            )
    if not (folder / INDEX_FILE).is_file():
        raise MissingFileError(f"{str(folder)!r} holds no model: its file {INDEX_FILE} is missing")
    return folder


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk: a folder of components, and an index that names them.

    It generates from text, from an image, or from both with a denoiser for each; the other components serve both. Of
    a model with a condition encoder, one denoiser takes text, images and control maps.

    Args:
        name: what it was asked for by.
        folder: where it lies.
        index: content of its ``model_index.json``.
    """

    name: str
    folder: Path
    index: Mapping[str, Any]

    @classmethod
    def find(cls, model: str | Path) -> Self:
        """An embedded model by name, or the model of a folder.

        Raises:
            ValueError: when there is no such model, or its index is not one of this pipeline.
            FileNotFoundError: for a folder without a model.
        """
        folder = find_model(model)
        path = folder / INDEX_FILE
        index = read_json(path, "expected the index of a model")
        found = index.get("_class_name")
        if found != PIPELINE_NAME:
            raise InvalidInputError(
                f"{str(path)!r} describes {found!r}, expected the index of a {PIPELINE_NAME}"
            )
        stored = cls(str(model), folder, index)
        if stored.takes_images and not isinstance(index.get("image"), dict):
            raise InvalidInputError(f"{str(path)!r} lacks 'image', expected how it is sampled with an image")
        return stored

    @property
    def takes_text_alone(self) -> bool:
        """Whether it generates without an image."""
        return "image_denoiser" not in self.index or "denoiser" in self.index

    @property
    def takes_images(self) -> bool:
        """Whether it generates from images."""
        return "image_denoiser" in self.index or self.takes_every_condition

    @property
    def takes_every_condition(self) -> bool:
        """Whether one denoiser takes text, images and every kind of control map."""
        return CONDITION_ENCODER in self.index

    @property
    def controls(self) -> tuple[ControlKind, ...]:
        """Kinds of control maps that it follows."""
        kinds: tuple[ControlKind, ...] = get_args(ControlKind)
        if self.takes_every_condition:
            return kinds
        return tuple(kind for kind in kinds if controlnet_folder(kind) in self.index)

    def require_variant(self, *, image: bool = False, controls: Sequence[ControlKind] = ()) -> None:
        """Make sure that the model generates from an image, and follows these kinds of control maps.

        Raises:
            ValueError: when it does not.
        """
        model = f"the model {self.name!r}"
        if self.takes_every_condition and image + len(controls) > 1:
            raise InvalidInputError(f"{model} takes an image or a control map, expected one of them")
        if (image or controls) and not self.controls and not self.takes_images:
            raise InvalidInputError(f"{model} takes text only, expected another such as mini or sd15")
        if image and not self.takes_images:
            raise InvalidInputError(f"{model} takes no image, expected another such as mini or sd15")
        for kind in controls:
            if kind not in self.controls:
                known = (
                    f"one of: {', '.join(self.controls)}" if self.controls else "another such as mini or sd15"
                )
                raise InvalidInputError(f"{model} has no ControlNet {kind!r}, expected {known}")

    def defaults(self, *, image: bool = False) -> SamplingDefaults:
        """How it is sampled from text, or from an image."""
        from_image = image or not self.takes_text_alone
        return SamplingDefaults.from_index(self.index["image"] if from_image else self.index)

    def parts(self, *, image: bool = False, controls: Sequence[ControlKind] = ()) -> dict[str, Path]:
        """Folders of what generation takes, by the names of the pipeline's components, ControlNets by their folders'.

        Args:
            image: from an image; always so where the model does not generate from text alone.
            controls: with the ControlNets of these kinds.

        Raises:
            ValueError: when the model has no such variant.
        """
        self.require_variant(image=image, controls=controls)
        from_image = image or not self.takes_text_alone
        own_denoiser = from_image and "image_denoiser" in self.index
        names = IMAGE_COMPONENTS if own_denoiser else TEXT_COMPONENTS
        optional = ("elevation_estimator",) if from_image else ()
        optional += () if own_denoiser else ("refiner", TEXT_DENOISER, FEW_STEP_SOLVER, CONDITION_ENCODER)
        names += tuple(name for name in optional if name in self.index)
        parts = {"denoiser" if name == "image_denoiser" else name: self.folder / name for name in names}
        networks = (controlnet_folder(kind) for kind in controls)
        return {**parts, **{name: self.folder / name for name in networks if name in self.index}}

    def require_files(self, parts: Collection[Path]) -> None:
        """Make sure that the files of components are there.

        Raises:
            FileNotFoundError: names the first that is missing.
        """
        for part in sorted(parts):
            names = [path.name for path in part.iterdir()] if part.is_dir() else []
            for file in self._expected_files(part.name):
                whole = file in names
                if not whole and not (file == WEIGHTS_FILE and choose_weights(names, Path(file).stem)):
                    raise MissingFileError(
                        f"the model {str(self.folder)!r} lacks its file {part.name}/{file}"
                    )

    def _expected_files(self, component: str) -> tuple[str, ...]:
        match component:
            case "scheduler":
                return (_SCHEDULER_FILE,)
            case "elevation_estimator":
                return (_CONFIG_FILE, _STATE_FILE)
            case "text_encoder":
                in_folders = self.index.get("text_encoder", ())[-1:] == ["ClipT5Encoder"]
                return (_CONFIG_FILE,) if in_folders else (_CONFIG_FILE, _STATE_FILE, "tokenizer.json")
            case _:
                return (_CONFIG_FILE, WEIGHTS_FILE)


def controlnet_folder(kind: ControlKind) -> str:
    """Folder of the ControlNet of a kind in a model, and its name in the index."""
    return f"controlnet-{kind}"


def write_index(
    folder: Path,
    components: Collection[str],
    defaults: SamplingDefaults | None,
    image_defaults: SamplingDefaults | None = None,
) -> None:
    """Write the index of a model.

    Args:
        folder: of the model, with a folder for each of its components.
        components: names of those folders.
        defaults: what it is sampled with from text; None when it does not generate from text alone.
        image_defaults: what it is sampled with from an image; None when it takes none.
    """
    index = {
        "_class_name": PIPELINE_NAME,
        "_diffsplat_version": diffsplat.__version__,
        **{name: _class_entry(folder / name) for name in components},
        **(asdict(defaults) if defaults else {}),
        **({"image": asdict(image_defaults)} if image_defaults else {}),
    }
    write_json(index, folder / INDEX_FILE)


def _class_entry(part: Path) -> list[str]:
    """Library and class of a component, as its configuration names it."""
    file = _SCHEDULER_FILE if part.name == "scheduler" else _CONFIG_FILE
    name = str(read_json(part / file)["_class_name"])
    return ["diffsplat" if name in _OWN_CLASSES else "diffusers", name]


def is_number(value: object) -> bool:
    """Whether a value is an integer or a float, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)
