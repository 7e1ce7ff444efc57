"""The record of a training run beside its weights: written at the start, compared when it is resumed."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import PartialState

from semcot.data import fingerprint
from semcot.files import write_json
from semcot.machine import device_name, versions
from semcot.training.options import RunOptions, flat
from semcot.training.problems import Problems

# A run may be moved, and pushed when it is done.
RESUME_FLAGS = (
    "output_dir",
    "resume_from_checkpoint",
    "overwrite_output_dir",
    "push_to_hub",
    "hub_model_id",
    "trainer.report_to",
)


def check_output_dir(options: RunOptions) -> None:
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
            before, now = flat(json.loads(record.read_text())), flat(asdict(options))
            names = {**now, **before}.keys() - set(RESUME_FLAGS)
            changed = sorted(name for name in names if now.get(name) != before.get(name))
            if changed:
                raise ValueError(
                    f"{folder} was started with other options: "
                    + ", ".join(f"{name} was {before.get(name)!r}, now {now.get(name)!r}" for name in changed)
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
            source = getattr(options, name, None)
            if isinstance(source, str) and Path(source).resolve() == folder.resolve():
                raise ValueError(f"{name} is {source}, which would be overwritten: give another --output_dir.")


def prepare_output_dir(options: RunOptions) -> None:
    """Makes the output folder, cleared of an earlier run that is not resumed, and writes the options into it."""
    check_output_dir(options)  # once more: another run may have begun there meanwhile
    folder = Path(options.output_dir)
    if _resumes(options):
        return
    if folder.exists():
        for name in ("stages", "reasoning_encoder"):
            shutil.rmtree(folder / name, ignore_errors=True)
        # An earlier run's model beside this one's options would pass for it, were this one cut short.
        for name in ("README.md", "data.json", "training.json", "config.json", "method.json", "model*.safetensors*"):
            for file in folder.glob(name):
                file.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "options.json", asdict(options))


def _resumes(options: RunOptions) -> bool:
    return options.resume_from_checkpoint and (Path(options.output_dir) / "options.json").exists()


def describe_run(problems: dict[str, Problems], shared: Problems) -> dict:
    """
    What is needed to tell one run from another: versions, hardware and a fingerprint of the data, those that all stages
    share and those that a stage has for itself.
    """
    state = PartialState()
    return {
        "versions": versions("torch", "transformers", "accelerate", "sentence_transformers", "datasets"),
        "device": device_name(state.device),
        "cpu_threads": torch.get_num_threads(),
        "processes": state.num_processes,
        **_describe(shared),
        "stage_data": {name: _describe(own) for name, own in problems.items() if own is not shared},
        "stages": {},
        "peak_memory_gb": {},
    }


def _describe(problems: Problems) -> dict:
    return {
        "train_problems": len(problems.train),
        "validation_problems": len(problems.validation),
        "data_sha256": fingerprint(problems.train),
        "validation_sha256": fingerprint(problems.validation),
    }


def check_same_run(output_dir: Path, record: dict) -> None:
    """Raises `ValueError` when a run is resumed with other data or another number of processes."""
    file = output_dir / "data.json"
    names = "data_sha256", "validation_sha256", "train_problems", "validation_problems", "stage_data", "processes"
    now = {name: record[name] for name in names}
    if file.exists():
        before = json.loads(file.read_text())
        if changed := [
            f"{name} was {before.get(name)}, now {now[name]}" for name in now if before.get(name) != now[name]
        ]:
            raise ValueError(
                f"{output_dir} was started with other data or processes: {', '.join(changed)}. Resume with the same, "
                "or start in another folder."
            )
    write_json(file, now)
