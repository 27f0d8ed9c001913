"""``diffsplat models`` against a hub on this machine."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffsplat.cli.main import main
from diffsplat.pretrained.hub import needed_files
from diffsplat.pretrained.release_catalogue import (
    BACKBONES,
    DINOV2_REPOSITORY,
    ELEVATION_RELEASE,
    RECONSTRUCTOR_RELEASE,
    RELEASE_REPOSITORY,
    model_components,
)
from diffsplat.pretrained.release_layout import default_weights
from diffsplat.training.run_folders import RunFolders
from support.hub_server import COMMIT, FakeHub, running_hub

SD15, SD35 = BACKBONES["sd15"], BACKBONES["sd35m"]
OTHER = "beef" * 10


def release_files() -> dict[str, bytes]:
    """The release repository: two iterations each, and things that nobody needs."""
    files: dict[str, bytes] = {"README.md": b"card"}
    networks = {
        SD15.text_release: "unet_ema",
        SD15.image_release: "unet_ema",
        SD35.text_release: "transformer_ema",
    }
    networks |= dict.fromkeys(SD15.control_releases.values(), "controlnet")
    for release, part in networks.items():
        for iteration in ("000900", "013020"):
            folder = f"{release}/checkpoints/{iteration}"
            files[f"{folder}/{part}/config.json"] = b"{}"
            files[f"{folder}/{part}/diffusion_pytorch_model.safetensors"] = f"{release} {iteration}".encode()
            files[f"{folder}/optimizer.bin"] = b"state of the optimizer"
    for release in (
        SD15.autoencoder_release,
        SD35.autoencoder_release,
        RECONSTRUCTOR_RELEASE,
        ELEVATION_RELEASE,
    ):
        folder = f"{release}/checkpoints/034180"
        shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
        files |= {f"{folder}/{shard}": f"{release} {shard}".encode() for shard in shards}
        index = {"weight_map": {"a": shards[0], "b": shards[1]}}
        files[f"{folder}/model.safetensors.index.json"] = json.dumps(index).encode()
    return files


def base_files(folders: tuple[str, ...]) -> dict[str, bytes]:
    """An image-diffusion repository with the formats that such repositories have."""
    files: dict[str, bytes] = {"model_index.json": b"{}", "v1-5-pruned.safetensors": b"everything" * 99}
    for folder in folders:
        files[f"{folder}/config.json"] = b"{}"
        if folder.startswith("tokenizer"):
            files |= {f"{folder}/merges.txt": b"a b", f"{folder}/spiece.model": b"pieces"}
        elif folder != "scheduler":
            stem = "diffusion_pytorch_model" if folder == "vae" else "model"
            for name in (
                f"{stem}.safetensors",
                f"{stem}.fp16.safetensors",
                "pytorch_model.bin",
                "flax_model.msgpack",
            ):
                files[f"{folder}/{name}"] = f"{folder} {name}".encode()
    return files


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with running_hub() as hub:
        hub.files[RELEASE_REPOSITORY] = release_files()
        for row in (SD15, SD35):
            hub.files[row.base_repository] = base_files(row.base_folders)
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("DIFFSPLAT_WEIGHTS", str(tmp_path / "weights"))
        yield hub


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return tmp_path / "weights"


def present(weights: Path) -> set[str]:
    paths = (path.relative_to(weights) for path in weights.rglob("*") if path.is_file())
    return {str(path) for path in paths if ".cache" not in path.parts}


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["models", *words]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("diffsplat: error: ")]
    assert len(error) == 1
    return error[0]


BASE = "stable-diffusion-v1-5"
NEEDED_BY_TEXT = {
    "revisions.json",
    f"{SD15.text_release}/checkpoints/013020/unet_ema/config.json",
    f"{SD15.text_release}/checkpoints/013020/unet_ema/diffusion_pytorch_model.safetensors",
    f"{SD15.autoencoder_release}/checkpoints/034180/model-00001-of-00002.safetensors",
    f"{SD15.autoencoder_release}/checkpoints/034180/model-00002-of-00002.safetensors",
    f"{SD15.autoencoder_release}/checkpoints/034180/model.safetensors.index.json",
    f"{BASE}/scheduler/config.json",
    f"{BASE}/text_encoder/config.json",
    f"{BASE}/text_encoder/model.safetensors",
    f"{BASE}/tokenizer/config.json",
    f"{BASE}/tokenizer/merges.txt",
    f"{BASE}/tokenizer/spiece.model",
    f"{BASE}/vae/config.json",
    f"{BASE}/vae/diffusion_pytorch_model.safetensors",
}


def test_download_fetches_what_generation_needs_and_nothing_else(hub: FakeHub, weights: Path):
    assert main(["models", "download", "sd15"]) == 0
    assert present(weights) == NEEDED_BY_TEXT
    release = hub.files[RELEASE_REPOSITORY]
    for name in NEEDED_BY_TEXT & release.keys():
        assert (weights / name).read_bytes() == release[name]
    vae = weights / BASE / "vae" / "diffusion_pytorch_model.safetensors"
    assert vae.read_bytes() == b"vae diffusion_pytorch_model.safetensors"


def test_what_training_starts_from(hub: FakeHub, weights: Path):
    """Parts of the 2D model, and the weights that loaders look for of those that a repository has at its root."""
    hub.files[SD15.base_repository] |= base_files(("unet",))
    hub.files[SD15.tiny_autoencoder] = {
        "config.json": b"{}",
        "diffusion_pytorch_model.safetensors": b"both",
        "taesd_decoder.safetensors": b"decoder",
        "README.md": b"card",
    }
    hub.files[DINOV2_REPOSITORY] = {
        "config.json": b"{}",
        "model.safetensors": b"dino",
        "pytorch_model.bin": b"dino",
    }
    assert main(["models", "download", "sd15", "--for-training"]) == 0
    assert main(["models", "download", "elevation", "--for-training"]) == 0
    base = {name for name in NEEDED_BY_TEXT if name.startswith(BASE)}
    base |= {f"{BASE}/unet/config.json", f"{BASE}/unet/model.safetensors"}
    others = {"taesd/config.json", "taesd/diffusion_pytorch_model.safetensors"}
    others |= {f"dinov2-with-registers-base/{name}" for name in ("config.json", "model.safetensors")}
    assert present(weights) == base | others | {"revisions.json"}
    folders = RunFolders((), weights, pretrained=weights)
    for repository, part in (
        (SD15.base_repository, SD15.base_denoiser),
        SD15.trained_autoencoder,
        (SD15.tiny_autoencoder, ""),
        (DINOV2_REPOSITORY, ""),
    ):
        assert folders.pretrained_part(repository, part).is_relative_to(weights)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("reconstructor",),
            "the training of 'reconstructor' starts from random weights, expected one of: elevation",
        ),
        (
            ("sd15", "--image"),
            "all variants are trained from the same networks, expected neither --image nor",
        ),
        (("mini",), "unknown backbone 'mini', expected one of: sd15"),
    ],
)
def test_training_without_networks_to_start_from(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
):
    assert message in refusal(capsys, "download", *words, "--for-training")


def test_image_and_control_variants(hub: FakeHub, tmp_path: Path):
    assert main(["models", "download", "sd15", "--image", "--weights", str(tmp_path / "image")]) == 0
    folders = {name.split("/")[0] for name in present(tmp_path / "image")}
    assert folders == {
        SD15.image_release,
        SD15.autoencoder_release,
        ELEVATION_RELEASE,
        BASE,
        "revisions.json",
    }
    words = ["--control", "depth", "canny", "--weights", str(tmp_path / "control")]
    assert main(["models", "download", "sd15", *words]) == 0
    found = present(tmp_path / "control")
    assert found > NEEDED_BY_TEXT
    assert {name.split("/")[0] for name in found - NEEDED_BY_TEXT} == {
        SD15.control_releases["depth"],
        SD15.control_releases["canny"],
    }
    assert main(["models", "download", "reconstructor", "--weights", str(tmp_path / "one")]) == 0
    assert {name.split("/")[0] for name in present(tmp_path / "one")} == {
        RECONSTRUCTOR_RELEASE,
        "revisions.json",
    }


def test_a_second_download_transfers_nothing(hub: FakeHub, weights: Path):
    assert main(["models", "download", "sd15"]) == 0
    assert len(hub.transfers()) == len(NEEDED_BY_TEXT) - 1
    hub.asked.clear()
    assert main(["models", "download", "sd15"]) == 0
    assert hub.transfers() == []


def test_a_file_that_was_damaged_is_fetched_again(hub: FakeHub, weights: Path):
    assert main(["models", "download", "sd15"]) == 0
    name = f"{SD15.text_release}/checkpoints/013020/unet_ema/diffusion_pytorch_model.safetensors"
    (weights / name).write_bytes(b"half of")
    hub.asked.clear()
    assert main(["models", "download", "sd15"]) == 0
    assert hub.transfers() == [name]
    assert (weights / name).read_bytes() == hub.files[RELEASE_REPOSITORY][name]


def test_a_transfer_that_breaks_goes_on_where_it_stopped(
    hub: FakeHub, weights: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4096)
    name = f"{SD15.text_release}/checkpoints/013020/unet_ema/diffusion_pytorch_model.safetensors"
    content = bytes(range(256)) * 400
    hub.files[RELEASE_REPOSITORY][name] = content
    hub.cut = {name}
    assert main(["models", "download", "sd15"]) == 0
    assert (weights / name).read_bytes() == content
    ranges = [wanted for verb, path, wanted in hub.asked if verb == "GET" and path.endswith(name)]
    assert len(ranges) == 2
    assert 0 < int(ranges[1].removeprefix("bytes=").removesuffix("-")) <= len(content) // 2


def test_later_downloads_stay_at_the_first_commit(hub: FakeHub, weights: Path):
    assert main(["models", "download", "sd15"]) == 0
    assert json.loads((weights / "revisions.json").read_text()) == {
        RELEASE_REPOSITORY: COMMIT,
        SD15.base_repository: COMMIT,
    }
    hub.heads[RELEASE_REPOSITORY] = OTHER
    assert main(["models", "download", "sd15", "--control", "depth"]) == 0
    assert json.loads((weights / "revisions.json").read_text())[RELEASE_REPOSITORY] == COMMIT
    assert main(["models", "download", "elevation", "--revision", OTHER]) == 0
    assert json.loads((weights / "revisions.json").read_text())[RELEASE_REPOSITORY] == OTHER


def test_gated_models_say_how_to_get_in(hub: FakeHub, capsys: pytest.CaptureFixture[str]):
    hub.gated.add(SD35.base_repository)
    message = refusal(capsys, "download", "sd35m")
    assert "https://huggingface.co/stabilityai/stable-diffusion-3.5-medium" in message
    assert "hf auth login" in message


def test_no_network(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    message = refusal(capsys, "download", "sd15")
    assert f"cannot reach {address}" in message
    assert "HF_ENDPOINT" in message
    assert "--weights" in message


def test_a_hub_out_of_order(hub: FakeHub, capsys: pytest.CaptureFixture[str]):
    hub.down = True
    assert "HTTP status 503, run the same command again later" in refusal(capsys, "download", "elevation")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sd16"], "unknown model 'sd16', expected one of: sd15"),
        (["mini"], "'mini' comes with the package"),
        (
            ["sd35m", "--control", "depth"],
            "no ControlNet 'depth' was released for 'sd35m', expected none, or the backbone sd15",
        ),
        (["elevation", "--image"], "'elevation' has no variants"),
        (["sd15", "--revision", "v9"], "'chenguolin/DiffSplat' has no revision 'v9'"),
        (
            ["pixart-sigma"],
            f"'chenguolin/DiffSplat' holds no weights in '{BACKBONES['pixart-sigma'].text_release}",
        ),
    ],
)
def test_what_does_not_exist(hub: FakeHub, capsys: pytest.CaptureFixture[str], words: list[str], says: str):
    assert says in refusal(capsys, "download", *words)


def test_a_repository_that_is_not_there(hub: FakeHub, capsys: pytest.CaptureFixture[str]):
    del hub.files[RELEASE_REPOSITORY]
    assert "has no repository 'chenguolin/DiffSplat'" in refusal(capsys, "download", "elevation")


def test_a_disk_that_is_too_small(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3))
    assert "has 0.0 GB left: free some" in refusal(capsys, "download", "elevation")


def test_pickled_weights_are_not_fetched():
    (component, *_) = model_components(SD15)
    folder = f"{SD15.text_release}/checkpoints/013020/unet_ema"
    files = {f"{folder}/config.json": 2, f"{folder}/diffusion_pytorch_model.bin": 9}
    with pytest.raises(ValueError, match=r"only pickled weights .*bin.*expected safetensors"):
        needed_files(files, component)


def test_half_precision_only_where_there_is_nothing_else():
    component = next(part for part in model_components(SD35) if part.folder == "text_encoder_3")
    half = ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"]
    full = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    indices = ["model.safetensors.index.fp16.json", "model.safetensors.index.json"]
    files = {f"text_encoder_3/{name}": 1 for name in (*half, *full, *indices)}
    assert needed_files(files, component) == [f"text_encoder_3/{name}" for name in (*full, indices[1])]
    files = {f"text_encoder_3/{name}": 1 for name in (*half, indices[0])}
    assert needed_files(files, component) == [f"text_encoder_3/{name}" for name in (*half, indices[0])]


def table(capsys: pytest.CaptureFixture[str], *words: str) -> dict[tuple[str, str], str]:
    """Rows by model and part."""
    assert main(["models", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines[0].index("part")
    end = lines[0].index("parameters") - 2
    return {(line[:start].strip(), line[start:end].strip()): line[end:] for line in lines[1:] if line.strip()}


def test_the_list(hub: FakeHub, weights: Path, capsys: pytest.CaptureFixture[str]):
    before = table(capsys)
    assert before["mini", "comes with the package"].endswith("here")
    for part in ("text model", "image model", "depth control", "normal control", "canny control"):
        assert before["sd15", part].endswith(" -")
    assert "2.24 B" in before["sd35m", "text model"]
    assert not hub.asked

    assert main(["models", "download", "sd15"]) == 0
    capsys.readouterr()
    after = table(capsys, "list", "--weights", str(weights))
    for part in ("text model", "splat autoencoder", f"parts of {BASE}"):
        assert after["sd15", part].endswith(" here")
    assert after["sd15", "image model"].endswith(" -")

    shard = next((weights / SD15.autoencoder_release).rglob("*-00002-of-*.safetensors"))
    shard.unlink()
    (weights / BASE / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    broken = table(capsys)
    assert broken["sd15", "splat autoencoder"].endswith(" -")
    assert broken["sd15", f"parts of {BASE}"].endswith(" partly here")


def test_sizes_of_what_is_not_here_come_from_the_hub(hub: FakeHub, capsys: pytest.CaptureFixture[str]):
    pixart = BACKBONES["pixart-sigma"]
    hub.files[pixart.base_repository] = base_files(pixart.base_folders)
    files = hub.files[RELEASE_REPOSITORY]
    for release in (pixart.text_release, pixart.image_release, SD35.image_release):
        name = f"{release}/checkpoints/000001/transformer_ema/diffusion_pytorch_model.safetensors"
        files[name] = b"0" * 2_500_000
    files[f"{pixart.autoencoder_release}/checkpoints/000001/model.safetensors"] = b"0" * 1_000_000
    rows = table(capsys, "--online")
    assert rows["pixart-sigma", "image model"].split()[-3:] == ["2.5", "MB", "-"]
    assert rows["pixart-sigma", "splat autoencoder"].split()[-3:] == ["1.0", "MB", "-"]


def test_the_list_comes_without_torch():
    probe = (
        "import sys; from diffsplat.cli.main import main; main(['models']); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "sd35m" in done.stdout


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DIFFSPLAT_WEIGHTS", raising=False)
    assert default_weights() == tmp_path / ".cache" / "diffsplat" / "weights"
    monkeypatch.setenv("DIFFSPLAT_WEIGHTS", "~/big")
    assert default_weights() == tmp_path / "big"
