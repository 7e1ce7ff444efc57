"""
A base whose weights are a little different in each step, so that the thoughts also serve other versions of it:
quantised ones, and those of another release.
"""

import random

import torch
from transformers import PreTrainedModel, TrainerCallback


def rounded(weight: torch.FloatTensor, bits: int, group: int | None = None) -> torch.FloatTensor:
    """Symmetric rounding to so many bits, with one scale for each row, or for each group of columns in a row."""
    groups = weight.reshape(-1, group or weight.shape[1])
    scale = groups.abs().amax(1, keepdim=True).clamp_min(1e-12) / (2 ** (bits - 1) - 1)
    return ((groups / scale).round() * scale).view_as(weight)


def noisy(weight: torch.FloatTensor, size: float, generator: torch.Generator) -> torch.FloatTensor:
    """Gaussian noise added, of a size relative to the matrix: |W' - W| = size * |W| in the Frobenius norm."""
    noise = torch.randn(weight.shape, generator=generator).to(weight)
    return weight + size * noise * weight.norm() / noise.norm()


class BaseNoise(TrainerCallback):
    """
    Changes a frozen base for the length of each optimizer step: a quarter of the steps keep it, an eighth rounds its
    matrices to 8 bits a weight, an eighth to 4 in groups of 32, half add noise. Validation and checkpoints see it as it
    is. What a step gets depends on the seed and its number alone, so that a resumed run repeats.

    Args:
        base: its matrices are changed, the token embeddings among them.
        size: the largest relative size of the noise; each step draws one between 0 and this.
        seed: of the draws.

    Raises:
        ValueError: the base's weights are quantised.
    """

    def __init__(self, base: PreTrainedModel, size: float, seed: int) -> None:
        self.size, self.seed = size, seed
        self.matrices = [weight for weight in base.parameters() if weight.dim() == 2]
        if not all(weight.is_floating_point() for weight in base.parameters()):
            raise ValueError("base_noise changes the base's weights, and these are quantised: leave it out.")
        self.kept = [weight.detach().clone() for weight in self.matrices]

    @torch.no_grad()
    def on_step_begin(self, args, state, control, **kwargs) -> None:
        rng = random.Random(f"{self.seed}, step {state.global_step}")
        kind, size = rng.random(), self.size * rng.random()
        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        for weight, kept in zip(self.matrices, self.kept, strict=True):
            if kind < 0.5:
                weight.copy_(noisy(kept, size, generator))
            elif kind < 0.75:
                # Where rows do not part into groups of 32, one scale for each row.
                weight.copy_(rounded(kept, 8) if kind < 0.625 else rounded(kept, 4, None if kept.numel() % 32 else 32))

    @torch.no_grad()
    def on_step_end(self, args, state, control, **kwargs) -> None:
        for weight, kept in zip(self.matrices, self.kept, strict=True):
            weight.copy_(kept)
