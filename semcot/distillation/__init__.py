"""Stage 2 of training: a generator learns implicit tokens that mean the reasoning and let the frozen base answer."""

from semcot.distillation.collator import DistillationCollator
from semcot.distillation.targets import IGNORED, lens_targets, split_steps, step_places, tokenize_problems
from semcot.distillation.trainer import DistillationTrainer

__all__ = [
    "IGNORED",
    "DistillationCollator",
    "DistillationTrainer",
    "lens_targets",
    "split_steps",
    "step_places",
    "tokenize_problems",
]
