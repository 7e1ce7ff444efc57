"""Control: noise."""

import torch

from semcot.evaluation.methods.control import Control


class Random(Control):
    """Noise with the mean square of the thoughts, but for that the same before each question, whatever the batches."""

    name = "semcot_random"

    def replace(self, thoughts: torch.FloatTensor) -> torch.FloatTensor:
        noise = torch.randn(thoughts.shape[1:], generator=torch.Generator().manual_seed(0)).to(thoughts.device)
        scale = thoughts.float().square().mean((1, 2), keepdim=True).sqrt()
        return (noise * scale).to(thoughts.dtype)
