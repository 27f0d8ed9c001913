"""The loop itself, on stages small enough to know the answer."""

import itertools
import json
import logging
import math
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import tracking
from PIL import Image
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from diffsplat.core.tensor_checks import require_finite
from diffsplat.errors import InvalidInputError, MissingPackageError
from diffsplat.training.checkpoints import list_checkpoints, newest_checkpoint
from diffsplat.training.stages.stage_interface import Losses, Report, Stage
from diffsplat.training.trainer import DivergedError, Trainer
from diffsplat.training.trainer_config import AveragePrecision, EmaConfig, OptimConfig, TrainerConfig

Pair = tuple[Tensor, Tensor]
SOLUTION = torch.tensor([[1.5, -2.0, 0.25], [0.5, 3.0, -1.0]])


class LinearSource:
    """Noise-free samples of ``y = SOLUTION x``."""

    def __init__(self, size: int = 16) -> None:
        self.size = size
        self.asked: list[int] = []

    def batch(self, step: int) -> Pair:
        self.asked.append(step)
        x = torch.randn(self.size, 3, generator=torch.Generator().manual_seed(step))
        return x, x @ SOLUTION.T

    def evaluation(self) -> list[Pair]:
        return [self.batch(10_000), self.batch(10_001)]


class LinearStage(Stage):
    """Least squares; ``hook`` sees every training step's number and prediction and may change the loss."""

    def __init__(self, hook: Any = None) -> None:
        super().__init__()
        self.network = nn.Linear(3, 2, bias=False)
        nn.init.zeros_(self.network.weight)
        self.hook = hook
        self.calls = 0

    def forward(self, batch: Pair, _step: int, /) -> Losses:
        prediction = self.network(batch[0])
        loss = (prediction - batch[1]).float().square().mean()
        if self.hook is not None:
            loss = self.hook(self.calls, prediction, loss)
        self.calls += 1
        return Losses(loss, {"error": loss.detach().sqrt()})

    def evaluate(self, batch: Pair) -> Report:
        image = torch.full((3, 4, 6), 0.5)
        return Report(
            {"corner": float(self.network.weight[0, 0]), "first": float(batch[0][0, 0])}, {"p": image}
        )

    def save_pretrained(self, directory: Path, /) -> None:
        (directory / "weights.json").write_text(json.dumps(self.network.weight.tolist()))


def config(**changes: Any) -> TrainerConfig:
    plain = TrainerConfig(
        steps=40,
        optim=OptimConfig(lr=0.05, weight_decay=0.0, warmup_steps=5),
        precision="fp32",
        device="cpu",
        log_every=1,
        evaluate_every=0,
        tracker="none",
    )
    return replace(plain, **changes)


def metrics(out: Path, kind: str = "train") -> list[dict[str, float]]:
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [entry for entry in entries if entry["kind"] == kind]


def losses(out: Path) -> dict[float, float]:
    return {entry["step"]: entry["loss"] for entry in metrics(out)}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_linear_regression_finds_its_solution(tmp_path: Path, name: str) -> None:
    stage = LinearStage()
    optim = OptimConfig(name=name, lr=0.1, weight_decay=0.0, warmup_steps=10)
    ema = EmaConfig(decay=0.9)
    outcome = Trainer(
        stage, LinearSource(), config(steps=400, optim=optim, ema=ema, log_every=50), tmp_path
    ).run()
    assert (outcome.status, outcome.step) == ("finished", 400)
    torch.testing.assert_close(stage.network.weight.detach(), SOLUTION, rtol=0, atol=2e-3)
    written = torch.tensor(json.loads((outcome.weights / "weights.json").read_text()))
    torch.testing.assert_close(written, SOLUTION, rtol=0, atol=2e-3)
    assert json.loads((tmp_path / "config.json").read_text())["optim"]["name"] == name


def test_gradients_are_clipped_to_the_norm_and_keep_their_direction(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    def pull(_step: int, prediction: Tensor, _loss: Tensor) -> Tensor:
        return 30.0 * prediction.mean()

    def record(optimizer: Any, *_: Any) -> None:
        seen.append(optimizer.param_groups[0]["params"][0].grad.clone())

    source = LinearSource()
    handle = register_optimizer_step_pre_hook(record)
    try:
        optim = OptimConfig(clip_norm=0.25)
        Trainer(LinearStage(pull), source, config(steps=1, optim=optim), tmp_path).run()
    finally:
        handle.remove()
    full = 15.0 * source.batch(0)[0].mean(0).expand(2, 3)
    assert float(full.norm()) > 0.25
    torch.testing.assert_close(seen[0], full * 0.25 / full.norm(), rtol=1e-4, atol=0)
    assert metrics(tmp_path)[0]["gradient_norm"] == pytest.approx(float(full.norm()), rel=1e-5)


def test_two_half_batches_accumulate_to_one_whole(tmp_path: Path) -> None:
    class Whole(LinearSource):
        def batch(self, step: int) -> Pair:
            half = LinearSource(8)
            pairs = [half.batch(2 * step), half.batch(2 * step + 1)]
            return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])

    first, second = LinearStage(), LinearStage()
    Trainer(first, LinearSource(8), config(accumulation=2), tmp_path / "a").run()
    Trainer(second, Whole(), config(), tmp_path / "b").run()
    torch.testing.assert_close(first.network.weight, second.network.weight, rtol=1e-4, atol=1e-5)
    assert metrics(tmp_path / "a")[-1]["samples"] == metrics(tmp_path / "b")[-1]["samples"] == 40 * 16


def test_autocast_faster_in_bf16_and_keeps_fp32_weights(tmp_path: Path) -> None:
    types: set[torch.dtype] = set()

    def note(_step: int, prediction: Tensor, loss: Tensor) -> Tensor:
        types.add(prediction.dtype)
        return loss

    stage = LinearStage(note)
    Trainer(stage, LinearSource(), config(steps=2, precision="bf16"), tmp_path).run()
    assert types == {torch.bfloat16}
    assert stage.network.weight.dtype == torch.float32


def test_evaluation_sees_averaged_weights_and_averages_over_batches(tmp_path: Path) -> None:
    history: list[float] = []

    def note(_step: int, _prediction: Tensor, loss: Tensor) -> Tensor:
        history.append(float(stage.network.weight[0, 0].detach()))
        return loss

    stage, source = LinearStage(note), LinearSource()
    ema = EmaConfig(decay=0.5, power=1000.0)
    outcome = Trainer(stage, source, config(steps=4, evaluate_every=3, ema=ema), tmp_path).run()
    _, first, second, third = history
    entry = metrics(tmp_path, "evaluation")[0]
    assert entry["step"] == 3
    assert entry["corner"] == pytest.approx(0.25 * first + 0.25 * second + 0.5 * third, rel=1e-5)
    mean = sum(float(batch[0][0, 0]) for batch in source.evaluation()) / 2
    assert entry["first"] == pytest.approx(mean, rel=1e-6)
    assert outcome.figures["first"] == pytest.approx(mean, rel=1e-6)
    with Image.open(tmp_path / "images" / "p.png") as image:
        assert (image.size, image.getpixel((0, 0))) == ((6, 4), (128, 128, 128))


def test_steps_that_are_not_finite_leave_no_trace(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def poison(step: int, _prediction: Tensor, loss: Tensor) -> Tensor:
        return loss * math.nan if step % 2 else loss

    with caplog.at_level(logging.WARNING):
        stage = LinearStage(poison)
        Trainer(stage, LinearSource(), config(steps=6), tmp_path).run()
    assert caplog.text.count("is skipped") == 3
    assert metrics(tmp_path)[-1]["skipped"] == 2
    assert [entry["step"] for entry in metrics(tmp_path)] == [1, 3, 5]
    assert bool(torch.isfinite(stage.network.weight).all())
    assert bool((stage.network.weight != 0).all())


def test_infinite_gradient_of_a_finite_loss_is_skipped(tmp_path: Path) -> None:
    def spike(_step: int, prediction: Tensor, _loss: Tensor) -> Tensor:
        return (prediction * 0).sum().abs().sqrt() + prediction.sum() * 0

    stage = LinearStage(spike)
    Trainer(stage, LinearSource(), config(steps=3), tmp_path).run()
    assert bool((stage.network.weight == 0).all())


def test_twenty_bad_steps_in_a_row_stop_the_run(tmp_path: Path) -> None:
    stage = LinearStage(lambda step, _p, loss: loss if step < 3 else loss * math.inf)
    with pytest.raises(DivergedError, match="20 steps in a row up to 23 were not finite"):
        Trainer(stage, LinearSource(), config(), tmp_path).run()
    assert bool(torch.isfinite(stage.network.weight).all())


def test_a_stage_that_meets_nan_itself_skips_the_step(tmp_path: Path) -> None:
    """Core types refuse NaN while a loss is computed; the run ends where it ends with an infinite loss there."""

    seen = itertools.count()

    def refuse(_step: int, prediction: Tensor, loss: Tensor) -> Tensor:
        if next(seen) in (3, 4):
            stage.calls += 1
            require_finite("Splats", "means", prediction * torch.nan)
        return loss

    def infinite(step: int, _prediction: Tensor, loss: Tensor) -> Tensor:
        return loss * torch.inf if step in (3, 4) else loss

    ends = []
    for name, hook in (("refused", refuse), ("infinite", infinite)):
        stage = LinearStage(hook)
        Trainer(stage, LinearSource(), config(), tmp_path / name).run()
        ends.append(stage.network.weight.detach().clone())
        assert metrics(tmp_path / name)[-1]["skipped"] == 2
    assert torch.equal(*ends)


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    def overflow(step: int, _prediction: Tensor, loss: Tensor) -> Tensor:
        if step == 30:
            stage.network.weight.data[0, 0] = torch.nan
        return loss.nan_to_num() if step < 30 else torch.zeros_like(loss, requires_grad=True)

    stage = LinearStage(overflow)
    run = Trainer(stage, LinearSource(), config(checkpoint_minutes=0), tmp_path)
    with pytest.raises(DivergedError, match=r"after step 31 weight is not finite.* --allow-changes"):
        run.run()
    assert [path.name for path in list_checkpoints(run.checkpoints)] == ["step-00000029", "step-00000030"]
    assert not run.weights.exists()


def test_a_changed_field_needs_consent_and_stays_in_the_record(tmp_path: Path) -> None:
    begun = config(steps=4, max_minutes=1e-9)
    Trainer(LinearStage(), LinearSource(), begun, tmp_path).run()
    changed = replace(begun, seed=begun.seed + 1, optim=replace(begun.optim, lr=0.01), prefetch=0)
    with pytest.raises(InvalidInputError, match=r"optim.lr was 0.05 and is 0.01") as refused:
        Trainer(LinearStage(), LinearSource(), changed, tmp_path).run()
    assert "seed was" in str(refused.value)
    assert "prefetch" not in str(refused.value)
    assert json.loads((tmp_path / "config.json").read_text())["optim"]["lr"] == 0.05
    Trainer(LinearStage(), LinearSource(), replace(changed, allow_changes=True), tmp_path).run()
    assert json.loads((tmp_path / "config.json").read_text())["optim"]["lr"] == 0.01
    (change,) = json.loads((tmp_path / "config_changes.json").read_text())["changes"]
    assert change == {"from_step": 1, "before": {"seed": begun.seed, "optim.lr": 0.05}}
    # The same again is no change, and goes on.
    assert Trainer(LinearStage(), LinearSource(), changed, tmp_path).run().step == 3


def test_a_finished_run_refuses_a_changed_field(tmp_path: Path) -> None:
    begun = config(steps=2)
    Trainer(LinearStage(), LinearSource(), begun, tmp_path).run()
    assert Trainer(LinearStage(), LinearSource(), begun, tmp_path).run().status == "finished"
    with pytest.raises(InvalidInputError, match="seed was"):
        Trainer(LinearStage(), LinearSource(), replace(begun, seed=begun.seed + 1), tmp_path).run()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_budget_stops_and_the_next_runs_end_where_one_run_ends(
    tmp_path: Path, precision: AveragePrecision
) -> None:
    whole, parts = LinearStage(), LinearStage()
    ema = EmaConfig(precision=precision)
    Trainer(whole, LinearSource(), config(steps=4, ema=ema), tmp_path / "whole").run()
    short = config(steps=4, ema=ema, max_minutes=1e-9)
    statuses = []
    for _ in range(5):
        parts = LinearStage()
        outcome = Trainer(parts, LinearSource(), short, tmp_path / "parts").run()
        statuses.append((outcome.status, outcome.step))
    assert statuses == [*(("out_of_time", step) for step in (1, 2, 3)), ("finished", 4), ("finished", 4)]
    assert torch.equal(parts.network.weight, whole.network.weight)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    averages = [newest_checkpoint(tmp_path / run / "checkpoints") for run in ("whole", "parts")]
    first, second = (checkpoint.groups["ema"]["weight"] for checkpoint in averages if checkpoint)
    assert first.dtype == {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    assert torch.equal(first, second)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_saves(tmp_path: Path, number: signal.Signals) -> None:
    def stop(step: int, _prediction: Tensor, loss: Tensor) -> Tensor:
        if step == 6:
            signal.raise_signal(number)
        return loss

    before = signal.getsignal(number)
    outcome = Trainer(LinearStage(stop), LinearSource(), config(), tmp_path).run()
    assert (outcome.status, outcome.step) == ("interrupted", 7)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000007"]
    assert signal.getsignal(number) is before


def test_metrics_after_the_checkpoint_and_torn_lines_are_cut_on_resume(tmp_path: Path) -> None:
    short = config(steps=3, max_minutes=1e-9)
    Trainer(LinearStage(), LinearSource(), short, tmp_path).run()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "kind": "train", "loss": 7.0}\n{"step": 3, "ki')
    Trainer(LinearStage(), LinearSource(), replace(short, max_minutes=None), tmp_path).run()
    assert [entry["step"] for entry in metrics(tmp_path)] == [1, 2, 3]
    assert 7.0 not in losses(tmp_path).values()


def test_checkpoint_of_another_stage_is_refused(tmp_path: Path) -> None:
    Trainer(LinearStage(), LinearSource(), config(steps=2), tmp_path).run()
    wide = LinearStage()
    wide.network = nn.Linear(3, 5, bias=False)
    with pytest.raises(ValueError, match=r"has \(2, 3\) for weight, expected \(5, 3\)"):
        Trainer(wide, LinearSource(), config(steps=3), tmp_path).run()


def test_source_is_asked_for_each_batch_once(tmp_path: Path) -> None:
    source = LinearSource()
    Trainer(LinearStage(), source, config(steps=5), tmp_path).run()
    assert sorted(step for step in source.asked if step < 10_000) == list(range(5))


def test_missing_gpu_is_one_clear_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device is cuda"):
        Trainer(LinearStage(), LinearSource(), config(device="cuda"), tmp_path)


def test_tensorboard_receives_scalars_and_images(tmp_path: Path) -> None:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    Trainer(LinearStage(), LinearSource(), config(steps=3, tracker="tensorboard"), tmp_path).run()
    events = loader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3]
    values = [event.value for event in events.Scalars("train/loss")]
    assert values == pytest.approx(list(losses(tmp_path).values()), rel=1e-6)
    assert [event.step for event in events.Images("p")] == [3]


def test_a_tracker_that_is_not_installed_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MissingPackageError, match=r"tracker is comet_ml, .* 'pip install comet-ml'"):
        Trainer(LinearStage(), LinearSource(), config(tracker="comet_ml"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_figures_go_to_any_tracker_of_accelerate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []

    class Spy(tracking.GeneralTracker):
        name = "mlflow"
        requires_logging_directory = True
        tracker = None

        def __init__(self, run_name: str, logging_dir: Path) -> None:
            super().__init__()
            seen.append((run_name, logging_dir))

        def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
            seen.append((step, *values))

        def finish(self) -> None:
            seen.append(("finished",))

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "mlflow", Spy)
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["mlflow"])
    Trainer(LinearStage(), LinearSource(), config(steps=2, tracker="mlflow"), tmp_path).run()
    assert seen[0] == ("diffsplat", tmp_path)
    assert [entry[0] for entry in seen[1:]] == [1, 2, 2, "finished"]
    assert "train/loss" in seen[1]
    assert "evaluation/corner" in seen[3]


def test_checkpoints_come_every_so_many_steps(tmp_path: Path) -> None:
    Trainer(LinearStage(), LinearSource(), config(checkpoint_steps=15, keep_checkpoints=9), tmp_path).run()
    steps = [int(path.name[5:]) for path in list_checkpoints(tmp_path / "checkpoints")]
    assert steps == [15, 30, 40]


def test_half_precision_networks_are_trained_with_fp32_weights(tmp_path: Path) -> None:
    stage = LinearStage()
    stage.network.bfloat16()
    Trainer(stage, LinearSource(), config(steps=2), tmp_path).run()
    assert stage.network.weight.dtype == torch.float32


def test_a_sharded_network_needs_processes_to_share_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="sharded is True, expected several processes"):
        Trainer(LinearStage(), LinearSource(), config(sharded=True), tmp_path)
    with pytest.raises(InvalidInputError, match=r"optim\.name is muon, expected adamw, which alone works"):
        config(sharded=True, optim=OptimConfig(name="muon"))
