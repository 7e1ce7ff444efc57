"""Control: no thoughts."""

import torch

from semcot.evaluation.methods.control import Control


class Zeroed(Control):
    """Zeros for thoughts."""

    name = "semcot_zeroed"

    def replace(self, thoughts: torch.FloatTensor) -> torch.FloatTensor:
        return torch.zeros_like(thoughts)
