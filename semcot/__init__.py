"""
The SemCoT workbench: problems, the stages of training, methods, judging and evaluation.

    import semcot

    semcot.train(semcot.TrainOptions(output_dir="runs/mine", generator=8, dataset="problems.jsonl"))
    semcot.evaluate(semcot.EvalOptions(model="runs/mine", data="multiarith", output_dir="runs/mine/multiarith"))
"""

from importlib import import_module

_PLACES = {
    "SemCoTConfig": "configuration_semcot",
    "SemCoTForCausalLM": "modeling_semcot",
    "load_problems": "semcot.data",
    "TrainOptions": "semcot.training.options",
    "train": "semcot.training.run",
    "EvalOptions": "semcot.evaluation.options",
    "evaluate": "semcot.evaluation.evaluate",
    "load_model": "semcot.evaluation.loading",
}
__all__ = list(_PLACES)


def __getattr__(name: str):
    """What is asked for is imported then: loading a checkpoint needs little of what training does."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
