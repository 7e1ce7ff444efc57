"""Stage 2 of training: a generator learns implicit tokens that mean the reasoning and let the frozen base answer."""

from semcot.data import split_steps
from semcot.data.step_ends import IGNORED, token_supervision_targets
from semcot.distillation.collator import DistillationCollator
from semcot.distillation.student import Student, shared_prefix_length
from semcot.distillation.targets import tokenize_problems
from semcot.distillation.trainer import DistillationTrainer

__all__ = [
    "IGNORED",
    "DistillationCollator",
    "DistillationTrainer",
    "Student",
    "shared_prefix_length",
    "split_steps",
    "token_supervision_targets",
    "tokenize_problems",
]
