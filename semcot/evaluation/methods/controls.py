"""
Controls: the same checkpoint with thoughts that cannot help. What it still answers, it does not owe to them. And with
those of the generator's first pass, where it makes several.
"""

from abc import abstractmethod

import torch

from semcot.evaluation.methods.semcot import SemCoT


class Control(SemCoT):
    """SemCoT with its thoughts replaced by others of the same shape `(batch, K, hidden size)`."""

    def generate(self, **inputs) -> torch.LongTensor:
        with torch.no_grad():
            thoughts = self.model.think(inputs["input_ids"], inputs["attention_mask"])
        return super().generate(thoughts=self.replace(thoughts), **inputs)

    @abstractmethod
    def replace(self, thoughts: torch.FloatTensor) -> torch.FloatTensor:
        """What the base reads instead."""


class Zeroed(Control):
    """No thoughts: zeros."""

    name = "semcot_zeroed"

    def replace(self, thoughts: torch.FloatTensor) -> torch.FloatTensor:
        return torch.zeros_like(thoughts)


class Shuffled(Control):
    """The thoughts of the question before, in the order of the data set, the first one's being those of the last."""

    name = "semcot_shuffled"
    _last: torch.FloatTensor | None = None

    def replace(self, thoughts: torch.FloatTensor) -> torch.FloatTensor:
        before = thoughts[-1:] if self._last is None else self._last
        self._last = thoughts[-1:]
        return torch.cat([before, thoughts[:-1]])


class Random(Control):
    """Noise with the mean square of the thoughts, but for that the same before each question, whatever the batches."""

    name = "semcot_random"

    def replace(self, thoughts: torch.FloatTensor) -> torch.FloatTensor:
        noise = torch.randn(thoughts.shape[1:], generator=torch.Generator().manual_seed(0)).to(thoughts.device)
        scale = thoughts.float().square().mean((1, 2), keepdim=True).sqrt()
        return (noise * scale).to(thoughts.dtype)


class OnePass(SemCoT):
    """The thoughts of the generator's first pass: what the further ones (`config.thought_passes`) add."""

    name = "semcot_one_pass"

    def generate(self, **inputs) -> torch.LongTensor:
        config, passes = self.model.config, self.model.config.thought_passes
        config.thought_passes = 1
        try:
            return super().generate(**inputs)
        finally:
            config.thought_passes = passes
