"""What a training run writes down beside the weights, and compares when it is resumed."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset

from semcot.data import fingerprint
from semcot.files import write_json
from semcot.machine import device_name, versions
from semcot.sharding import engine
from semcot.training.options import TrainOptions

# A run may be moved, and pushed when it is done.
RESUME_FLAGS = (
    "output_dir",
    "resume_from_checkpoint",
    "overwrite_output_dir",
    "push_to_hub",
    "hub_model_id",
    "report_to",
)

PLAIN = "data parallelism"
"""What a run is recorded with that no engine was asked for."""


def check_output_dir(options: TrainOptions) -> None:
    """
    Whether the run may go into its output folder, which stays as it is.

    Raises:
        FileExistsError: it holds something and neither resuming nor overwriting was asked for.
        ValueError: resuming with other options than the run was started with, or overwriting what the run begins with.
    """
    folder = Path(options.output_dir)
    record = folder / "options.json"
    if folder.exists() and any(folder.iterdir()):
        if _resumes(options):
            before, now = json.loads(record.read_text()), asdict(options)
            changed = [name for name in now if now[name] != before.get(name) and name not in RESUME_FLAGS]
            if changed:
                raise ValueError(
                    f"{folder} was started with other options: "
                    + ", ".join(f"{name} was {before.get(name)!r}, now {now[name]!r}" for name in changed)
                    + ". Resume with the same ones, or start in another folder."
                )
            return
        if not record.exists():
            raise FileExistsError(
                f"{folder} is not empty and holds no earlier run (no options.json) to go on with or to clear. Give "
                "another --output_dir, or empty it."
            )
        if not options.overwrite_output_dir:
            raise FileExistsError(
                f"{folder} is not empty. Give another --output_dir, or --resume_from_checkpoint True to go on with the "
                "run in it, or --overwrite_output_dir True to start afresh."
            )
        for name in ("base_model", "generator"):
            source = getattr(options, name)
            if source and Path(source).resolve() == folder.resolve():
                raise ValueError(f"{name} is {source}, which would be overwritten: give another --output_dir.")


def prepare_output_dir(options: TrainOptions) -> None:
    """Makes the output folder, cleared of an earlier run that is not resumed, and writes the options into it."""
    check_output_dir(options)  # once more: another run may have begun there meanwhile
    folder = Path(options.output_dir)
    if _resumes(options):
        return
    if folder.exists():
        for name in ("phases", "reasoning_encoder"):
            shutil.rmtree(folder / name, ignore_errors=True)
        # An earlier run's model beside this one's options would pass for it, were this one cut short.
        for name in ("README.md", "data.json", "training.json", "config.json", "model*.safetensors*"):
            for file in folder.glob(name):
                file.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "options.json", asdict(options))


def _resumes(options: TrainOptions) -> bool:
    return options.resume_from_checkpoint and (Path(options.output_dir) / "options.json").exists()


def describe_run(train_set: Dataset, validation_set: Dataset) -> dict:
    """What is needed to tell one run from another: versions, hardware and a fingerprint of the data."""
    state = PartialState()
    return {
        "versions": versions("torch", "transformers", "accelerate", "sentence_transformers", "datasets"),
        "device": device_name(state.device),
        "cpu_threads": torch.get_num_threads(),
        "processes": state.num_processes,
        "engine": engine() or PLAIN,
        "train_problems": len(train_set),
        "validation_problems": len(validation_set),
        "data_sha256": fingerprint(train_set),
        "validation_sha256": fingerprint(validation_set),
    }


def check_same_run(output_dir: Path, record: dict) -> None:
    """Raises `ValueError` when a run is resumed with other data, another number of processes or another engine."""
    file = output_dir / "data.json"
    names = "data_sha256", "validation_sha256", "train_problems", "validation_problems", "processes", "engine"
    now = {name: record[name] for name in names}
    if file.exists():
        before = {**now, "engine": PLAIN, **json.loads(file.read_text())}  # older records lack some
        if changed := [f"{name} was {before[name]}, now {now[name]}" for name in now if before[name] != now[name]]:
            raise ValueError(
                f"{output_dir} was started with other data, processes or engine: {', '.join(changed)}. Resume with the "
                "same, or start in another folder."
            )
    write_json(file, now)
