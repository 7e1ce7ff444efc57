"""
The methods to compare, by name. A new one is a new file with a subclass of [`Method`], and its line here.

One to train is a [`TrainedMethod`]: parts in `__init__`, `loss(problems, stage)`, `prompt_ids(questions)` and, where
needed, `generate` and `stage(progress)`. `train_semcot.py --method NAME --settings.OPTION VALUE --output_dir FOLDER`
trains it, its settings being the keyword arguments of `__init__`, and `eval_semcot.py --methods NAME=FOLDER` judges it.
"""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from semcot.evaluation.methods.coconut import Coconut
from semcot.evaluation.methods.codi import Codi
from semcot.evaluation.methods.cot import ExplicitCoT
from semcot.evaluation.methods.cot_few_shot import FewShotCoT
from semcot.evaluation.methods.direct import Direct
from semcot.evaluation.methods.finetuned import FineTunedCondensedCoT, FineTunedCoT, FineTunedDirect
from semcot.evaluation.methods.icot_si import ICoTSI
from semcot.evaluation.methods.lotus import Lotus
from semcot.evaluation.methods.method import Method, Output, prompt_without_thoughts
from semcot.evaluation.methods.pause import Pause
from semcot.evaluation.methods.pccot import PCCoT
from semcot.evaluation.methods.random import Random
from semcot.evaluation.methods.semcot import SemCoT
from semcot.evaluation.methods.shuffled import Shuffled
from semcot.evaluation.methods.softcot import SoftCoT
from semcot.evaluation.methods.trained import TrainedMethod
from semcot.evaluation.methods.zeroed import Zeroed

COMPARED = (SemCoT, Direct, ExplicitCoT)
METHODS: dict[str, type[Method]] = {method.name: method for method in (*COMPARED, Zeroed, Shuffled, Random)}
"""Those that a checkpoint is enough for."""
TRAINED: dict[str, type[TrainedMethod]] = {
    method.name: method
    for method in (
        *(FineTunedDirect, FineTunedCoT, FineTunedCondensedCoT),
        *(Pause, ICoTSI, SoftCoT, Coconut, Codi, PCCoT, Lotus),
    )
}
"""Those that `train_semcot.py --method` trains, and `NAME=FOLDER` opens."""


def open_method(
    name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, base_model: str | None = None
) -> Method:
    """
    The method that `NAME` or `NAME=SOURCE` names, beside a loaded checkpoint: on its device and in its dtype.

    Raises:
        ValueError: there is no such method, or it does not go with what follows the name.
        FileNotFoundError: the folder that follows the name holds no trained method.
    """
    name, _, source = name.partition("=")
    return method_named(name).open(source or None, model, tokenizer, base_model=base_model)


def method_named(name: str) -> type[Method]:
    """Raises `ValueError` where there is none of this name."""
    known: dict[str, type[Method]] = METHODS | {FewShotCoT.name: FewShotCoT} | TRAINED
    if name not in known:
        raise ValueError(f"There is no method {name!r}; there are {', '.join(known)}.")
    return known[name]


__all__ = [
    "COMPARED",
    "METHODS",
    "TRAINED",
    "ExplicitCoT",
    "FewShotCoT",
    "Method",
    "Output",
    "SemCoT",
    "TrainedMethod",
    "method_named",
    "open_method",
    "prompt_without_thoughts",
]
