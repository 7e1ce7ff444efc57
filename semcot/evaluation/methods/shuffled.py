"""Control: another question's thoughts."""

import torch

from semcot.evaluation.methods.control import Control


class Shuffled(Control):
    """The thoughts of the question before, in the order of the data set, the first one's being those of the last."""

    name = "semcot_shuffled"
    _last: torch.FloatTensor | None = None

    def replace(self, thoughts: torch.FloatTensor) -> torch.FloatTensor:
        before = thoughts[-1:] if self._last is None else self._last
        self._last = thoughts[-1:]
        return torch.cat([before, thoughts[:-1]])
