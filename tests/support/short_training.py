"""How tests train: a few exact steps on the CPU, each in the log."""

from diffsplat.training.trainer_config import OptimConfig, TrainerConfig

SHORT_TRAINER = TrainerConfig(
    steps=3,
    log_every=1,
    precision="fp32",
    device="cpu",
    tracker="none",
    optim=OptimConfig(warmup_steps=1),
)
