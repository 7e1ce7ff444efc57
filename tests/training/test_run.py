"""Whole training runs on a tiny base: what they write and what they refuse."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT, tiny_base_tokenizer, tiny_language_model
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.training_args import BatchSamplers
from training_runs import ENVIRONMENT, answers_alone, check_losses, histories, run, with_stages
from transformers import AutoModelForCausalLM, AutoTokenizer

from semcot.data import fingerprint, load_problems
from semcot.distillation import token_supervision_targets
from semcot.distillation.base_noise import BaseNoise
from semcot.encoder import contrastive, load_reasoning_encoder
from semcot.training import stages, train
from semcot.training.build import build_model
from semcot.training.card import describe_for_card, hub_datasets
from semcot.training.options import Stage
from semcot.training.problems import load_data
from semcot.training.record import check_output_dir, prepare_output_dir
from semcot.training.stages import Run


def test_the_output_folder_is_a_checkpoint(finished):
    options, folder = finished
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    batch = tokenizer(["How many songs are left?"], return_tensors="pt")
    assert model.generate(**batch, max_new_tokens=2, do_sample=False).shape[1] > batch.input_ids.shape[1]
    assert model.config.checkpoint_kind == "adapter"
    assert not [file for file in folder.rglob("*") if file.suffix in (".pkl", ".bin")]
    assert json.loads((folder / "options.json").read_text()) == asdict(options)
    encoder = SentenceTransformer(str(folder / "reasoning_encoder"), trust_remote_code=True)
    assert encoder.encode("2 + 2 = 4").shape == (768,)


def test_the_card_and_the_records(finished):
    options, folder = finished
    card = (folder / "README.md").read_text()
    rows = ["stages.generator.learning_rate | 0.0003", "trainer.save_steps | 2", "generator | answer loss"]
    rows += ["warm_up | accuracy", *(f"{name} | reasoning to condensed" for name in ("dense", "all"))]
    for text in ("synthetic_coin_flip (40)", *(f"| {row} |" for row in rows)):
        assert text in card
    record, data = json.loads((folder / "training.json").read_text()), load_data(options)
    found = f"; {len(data.train)} problems to train on and {len(data.validation)} of the same source for validation"
    assert found in card and "output_dir" not in card
    assert [record["data_sha256"], record["validation_sha256"]] == [
        fingerprint(data.train),
        fingerprint(data.validation),
    ]
    assert record["reasoning_encoder"]["kept"] in ("dense", "all")
    losses = json.loads((folder / "reasoning_encoder" / "losses.json").read_text())
    assert all(sum("loss" in entry for entry in losses[stage]) == 5 for stage in ("dense", "all"))
    all_terms = "answer_loss alignment_loss token_supervision_loss accuracy".split()
    for stage, terms in (("warm_up", all_terms), ("thoughts", all_terms[2:3]), ("generator", all_terms)):
        history = histories(options)[stage]
        for term in terms:
            assert sum(term in entry for entry in history) == 5, "a training figure for each step"
            assert any(f"eval_{term}" in entry for entry in history)


def test_the_figures_of_a_stage_are_those_of_its_last_validation(finished):
    options, folder = finished
    record, card = json.loads((folder / "training.json").read_text()), (folder / "README.md").read_text()
    losses = set()
    for stage, term in (
        ("warm_up", "answer_loss"),
        ("thoughts", "token_supervision_loss"),
        ("generator", "answer_loss"),
    ):
        history, figures = histories(options)[stage], record["stages"][stage]
        last = [entry[f"eval_{term}"] for entry in history if f"eval_{term}" in entry][-1]
        assert figures[term] == last
        (weights,) = (other.losses for other in options.stages if other.name == stage)
        terms = [weight * figures[f"{name}_loss"] for name, weight in weights.items()]
        assert figures["loss"] == pytest.approx(sum(terms), abs=2e-4)
        assert f"| {stage} | {term.replace('_', ' ')} | {last:.4g} |" in card
        losses.add(last)
    assert len(losses) == 3


def test_each_stage_trains_what_it_says_and_the_base_never(finished):
    options, folder = finished
    before = build_model(options)[0].state_dict()
    warm, done = (
        load_file(folder / "stages" / stage / "finished" / "model.safetensors") for stage in ("warm_up", "generator")
    )
    changed = {name for name in warm if not torch.equal(warm[name], before[name])}
    assert changed == {"projection.weight", "projection.bias", "thought_embedding"}
    assert sum(not torch.equal(done[name], warm[name]) for name in done) > 10
    assert not any(name.startswith("language_model") for name in done)
    saved = load_file(folder / "model.safetensors")
    assert saved.keys() == done.keys() and all(torch.equal(saved[name], done[name]) for name in done)


def test_what_is_aligned_with_is_the_reasoning(finished):
    options, folder = finished
    encoder = SentenceTransformer(str(folder / "reasoning_encoder"), trust_remote_code=True)
    data = load_data(options)
    for split, problems in (("validation", data.validation), ("train", data.train.select(range(40)))):
        embedded = load_file(folder / f"stages/reasoning_embeddings_warm_up_{split}.safetensors")["embeddings"]
        expected = encoder.encode(problems["reasoning"], convert_to_tensor=True)
        torch.testing.assert_close(embedded, expected, atol=1e-4, rtol=1e-4)


@pytest.fixture
def embedding_run(finished, tmp_path) -> Run:
    """A run that has got its encoder, in another folder."""
    options, folder = finished
    model, tokenizer = build_model(options)
    (tmp_path / "stages").mkdir()
    encoder = load_reasoning_encoder(folder / "reasoning_encoder", model.language_model)
    return Run(replace(options, output_dir=str(tmp_path)), model, tokenizer, {}, {}, encoder=encoder)


def test_reasonings_are_embedded_in_the_precision_of_training(embedding_run):
    problems, embedded = load_data(embedding_run.options).validation, {}
    for bf16 in (True, False):
        embedding_run.options = replace(embedding_run.options, trainer={"bf16": bf16})
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            expected = embedding_run.encoder.encode(problems["reasoning"], convert_to_tensor=True).float()
        found = stages.embed_reasonings(embedding_run, problems, str(bf16))
        embedded[bf16] = torch.tensor(found["reasoning_embedding"])
        torch.testing.assert_close(embedded[bf16], expected, atol=1e-5, rtol=1e-5)
    assert (embedded[True] - embedded[False]).abs().max() > 1e-3


def test_embeddings_are_whole_or_not_there_and_zero_without_a_reasoning(embedding_run, tmp_path, monkeypatch):
    problems = load_data(embedding_run.options).validation.map(
        lambda row, i: {"reasoning": row["reasoning"] * i}, with_indices=True
    )
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        stages.embed_reasonings(embedding_run, problems, "some")
    assert not list(tmp_path.rglob("*.safetensors"))
    found = torch.tensor(stages.embed_reasonings(embedding_run, problems, "some")["reasoning_embedding"])
    assert found.any(1).tolist() == [i > 0 for i in range(len(problems))]


def test_every_option_arrives(options, monkeypatch):
    """Each has a value that no other has, nor any default."""
    started = ["projection", "thought_embedding"]
    options = replace(
        options,
        dataset={"synthetic_arithmetic": 100},
        validation_fraction=0.3,
        seed=3,
        max_steps=-1,
        supervised_steps=2,
        stages=[
            Stage("reasoning_encoder.dense", "dense", learning_rate=0.011, epochs=0.2, batch_size=7),
            Stage("reasoning_encoder", "all", learning_rate=0.012, epochs=5, batch_size=7, max_steps=3),
            Stage(
                started, "warm_up", {"answer": 0.6, "alignment": 0.4}, learning_rate=0.013, epochs=0.12, batch_size=6
            ),
            Stage("generator", "thoughts", {"token_supervision": 1}, learning_rate=0.014, epochs=0.5, batch_size=5),
            Stage(
                "generator.layers.1",
                "last_layer",
                {"token_supervision": 1},
                {"synthetic_arithmetic:2": 40},
                learning_rate=0.015,
                epochs=0.6,
                batch_size=9,
            ),
            Stage(
                [*started, "generator"],
                "generator",
                {"answer": 0.6, "alignment": 0.4, "token_supervision": 0.35},
                base_noise=0.08,
                learning_rate=0.016,
                epochs=0.45,
                batch_size=6,
            ),
        ],
        trainer={
            "gradient_accumulation_steps": 2,
            "lr_scheduler_type": "constant_with_warmup",
            "optim": "adafactor",
            "weight_decay": 0.21,
            "max_grad_norm": 0.7,
            "gradient_checkpointing": True,
            "logging_steps": 3,
            "eval_steps": 4,
            "save_steps": 7,
            "report_to": ["tensorboard"],
            "bf16": True,
        },
    )
    trainers, encoders, losses = [], [], []

    def recording(place, name: str, seen: list) -> None:
        made = getattr(place, name)

        def make(*arguments, **named):
            seen.append((made(*arguments, **named), named))
            return seen[-1][0]

        monkeypatch.setattr(place, name, make)

    recording(stages, "DistillationTrainer", trainers)
    recording(contrastive, "SentenceTransformerTrainingArguments", encoders)
    recording(contrastive, "MultipleNegativesRankingLoss", losses)
    model = train(options)

    tokenizer = AutoTokenizer.from_pretrained(options.output_dir)
    expected = {"dense": (0.011, 2), "all": (0.012, 3)}  # steps: of 70 problems in batches of 7
    for arguments, _ in encoders:
        rate, steps = expected.pop(Path(arguments.output_dir).name)
        assert (arguments.learning_rate, arguments.max_steps, arguments.warmup_steps) == (rate, steps, 1)
        assert (arguments.seed, arguments.bf16, arguments.optim) == (3, True, "adafactor")
        assert (arguments.logging_steps, arguments.save_steps, arguments.report_to) == (3, 7, ["tensorboard"])
        assert arguments.per_device_train_batch_size == 7 and arguments.batch_sampler == BatchSamplers.NO_DUPLICATES
    assert not expected and len(losses) == 2

    taught = {Path(trainer.args.output_dir).name: trainer for trainer, _ in trainers}
    steps = {"warm_up": 1, "thoughts": 4, "last_layer": 1, "generator": 3}  # of 70 or 28 problems, in twice the batch
    assert list(taught) == list(steps)
    for stage in options.stages[2:]:
        trainer = taught[stage.name]
        arguments = trainer.args
        assert arguments.learning_rate == stage.learning_rate
        assert arguments.max_steps == steps[stage.name] and arguments.warmup_steps == (steps[stage.name] > 1)
        assert (arguments.logging_steps, arguments.save_steps, arguments.report_to) == (3, 7, ["tensorboard"])
        assert (arguments.eval_strategy, arguments.eval_steps, arguments.save_total_limit) == ("steps", 4, 2)
        assert arguments.per_device_train_batch_size == arguments.per_device_eval_batch_size == stage.batch_size
        given = {id(weight) for group in trainer.optimizer.param_groups for weight in group["params"]}
        parts = {name.split(".")[0] for name, weight in model.named_parameters() if id(weight) in given}
        assert parts == {part.split(".")[0] for part in stage.train}
        assert (arguments.weight_decay, arguments.max_grad_norm) == (0.21, 0.7)
        assert (arguments.lr_scheduler_type, arguments.optim) == ("constant_with_warmup", "adafactor")
        assert (arguments.seed, arguments.bf16) == (3, True)
        assert arguments.gradient_checkpointing and arguments.gradient_accumulation_steps == 2
        assert trainer.losses == stage.losses
        sizes = {"thoughts": (70, 30), "last_layer": (28, 12)}.get(stage.name, (36, 30))
        assert (len(trainer.train_dataset), len(trainer.eval_dataset)) == sizes
        text, labels = trainer.eval_dataset["condensed_reasoning"][0], trainer.eval_dataset["thought_labels"][0]
        assert labels == token_supervision_targets(text, tokenizer, 5, 2)
        assert trainer.model.shared_prefix > 0
        noises = [part for part in trainer.callback_handler.callbacks if isinstance(part, BaseNoise)]
        assert [(noise.size, noise.seed) for noise in noises] == ([(0.08, 3)] if stage.name == "generator" else [])
    found = {
        token
        for each in taught.values()
        for part in (each.train_dataset, each.eval_dataset)
        for ids in part["thought_labels"]
        for token in ids
    }
    assert taught["generator"].supervised_tokens.tolist() == sorted(found - {-100})


def test_losses_fall(options):
    steps = {"max_steps": 60, "epochs": 20, "learning_rate": 3e-3}
    options = replace(answers_alone(options, **steps), max_steps=60, trainer={**options.trainer, "save_steps": 100})
    train(options)
    losses = [entry["answer_loss"] for entry in histories(options)["generator"] if "answer_loss" in entry]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert not (Path(options.output_dir) / "reasoning_encoder").exists(), "no alignment needs no stage 1"


def test_a_stage_of_one_step_trains_something(options):
    options = replace(with_stages(options, "dense", "generator"), max_steps=1)
    options = replace(
        options, stages=[options.stages[0], replace(options.stages[1], losses={"answer": 0.5, "alignment": 0.5})]
    )
    train(options)
    folder = Path(options.output_dir)
    losses = [
        *histories(options).values(),
        json.loads((folder / "reasoning_encoder" / "losses.json").read_text())["dense"],
    ]
    assert len(losses) == 2 and all(entry["learning_rate"] > 0 for [entry, *_] in losses)
    started, _ = build_model(options)
    trained = load_file(folder / "model.safetensors")
    assert not all(torch.equal(started.state_dict()[name], weight) for name, weight in trained.items())


@pytest.mark.slow
def test_losses_go_to_tensorboard_and_trackio(options, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing import event_accumulator

    monkeypatch.setitem(ENVIRONMENT, "TRACKIO_DIR", str(tmp_path / "trackio"))
    trainer = {**options.trainer, "report_to": ["tensorboard", "trackio"]}
    options = replace(with_stages(options, "dense", "warm_up"), max_steps=2, trainer=trainer)
    history = run(options)["warm_up"]
    drawn = next((tmp_path / "run/stages/warm_up").rglob("events.*"))
    events = event_accumulator.EventAccumulator(str(drawn.parent))
    events.Reload()
    drawn = [event.value for event in events.Scalars("train/answer_loss")]
    assert drawn == pytest.approx([entry["answer_loss"] for entry in history if "answer_loss" in entry])
    assert next((tmp_path / "run/reasoning_encoder/phases/dense").rglob("events.*")), "the curves stay"
    assert not list((tmp_path / "run/reasoning_encoder/phases").rglob("*.safetensors"))
    assert list((tmp_path / "trackio").rglob("*semcot*"))


@pytest.mark.slow
def test_compiled_it_learns_the_same(options, tmp_path):
    """Without code for the processor, which takes minutes to be made."""
    options = replace(answers_alone(options), max_steps=2)
    train(options)
    compiled = {**options.trainer, "torch_compile": True, "torch_compile_backend": "aot_eager"}
    compiled = replace(options, output_dir=str(tmp_path / "compiled"), trainer=compiled)
    train(compiled)
    assert check_losses(histories(compiled), histories(options), {"answer_loss", "eval_answer_loss"}) == 4
    weights, others = (load_file(folder / "model.safetensors") for folder in (tmp_path / "run", tmp_path / "compiled"))
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, atol=1e-3, rtol=1e-3)


# ---------------------------------------------------------------------------------------------------- what is refused


def test_a_non_empty_folder(options, finished):
    Path(options.output_dir).mkdir()
    (Path(options.output_dir) / "thesis.txt").write_text("mine")
    for asked in ({}, {"resume_from_checkpoint": True}, {"overwrite_output_dir": True}):
        with pytest.raises(FileExistsError, match="holds no earlier run .* Give another --output_dir, or empty it"):
            train(replace(options, **asked))
    with pytest.raises(FileExistsError):
        prepare_output_dir(options)  # filled since it was checked
    with pytest.raises(FileExistsError, match="is not empty. .* or --resume_from_checkpoint True"):
        train(finished[0])
    assert (Path(options.output_dir) / "thesis.txt").read_text() == "mine"
    resumed = replace(finished[0], resume_from_checkpoint=True)
    for name, before, other in (("alpha", None, 0.25), ("seed", 0, 1), ("num_thoughts", 5, 4)):
        with pytest.raises(ValueError, match=f"{name} was {before}, now {other}"):
            train(replace(resumed, **{name: other}))
    *others, last = resumed.stages
    with pytest.raises(ValueError, match="stages.generator.learning_rate was 0.0003, now 0.1"):
        train(replace(resumed, stages=[*others, replace(last, learning_rate=0.1)]))
    with pytest.raises(ValueError, match="trainer.weight_decay was 0.01, now 0.5"):
        train(replace(resumed, trainer={**resumed.trainer, "weight_decay": 0.5}))
    free = {
        "trainer": {**resumed.trainer, "report_to": ["trackio"]},
        "push_to_hub": True,
        "hub_model_id": "someone/mine",
    }
    check_output_dir(replace(resumed, **free))


def test_what_cannot_end_well_is_refused_at_the_start(options, tmp_path, finished, monkeypatch):
    with pytest.raises(ValueError, match="nobody who downloads the checkpoint has"):
        train(replace(options, push_to_hub=True))
    with pytest.raises(ValueError, match="Repo id"):
        train(replace(options, base_model="someone/base", push_to_hub=True, output_dir="run 1 (é)"))
    for trainer, message in (
        ({"learning_rat": 1}, "TrainingArguments has no learning_rat"),
        ({"learning_rate": 1}, "learning_rate is said by the recipe itself"),
        ({"optim": "adamm"}, "trainer: .*adamm"),
    ):
        with pytest.raises(ValueError, match=message):
            train(replace(options, trainer=trainer))
    with pytest.raises(ValueError, match="trains 'projector', which is no part of this model"):
        train(with_stages(options, "thoughts", train=["projector"]))
    file = tmp_path / "train.json"
    bare = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(20)]
    own = replace(answers_alone(options), dataset={str(file): None}, max_steps=-1)
    file.write_text(json.dumps([*bare, {"question": "What? " * 400, "answer": "7"}]))
    for part in ("train", "validation"):
        seed = next(
            s for s in range(99) if max(map(len, getattr(load_data(replace(own, seed=s)), part)["question"])) > 1000
        )
        with pytest.raises(ValueError, match=r"has \d+ tokens, the models read at most 1024.*What\? What\?"):
            train(replace(own, seed=seed))
    file.write_text(json.dumps([*bare, {"question": "What is <thought>?", "answer": "7"}]))
    with pytest.raises(ValueError, match="<thought>"):
        train(own)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(ValueError, match="mixed_precision bf16: set it to 'no'"):
        train(own)
    assert not Path(options.output_dir).exists()


def test_a_run_is_resumed_with_its_own_data_alone(finished, tmp_path):
    folder = tmp_path / "resumed"
    shutil.copytree(finished[1], folder)
    data = json.loads((folder / "data.json").read_text())
    resumed = replace(finished[0], output_dir=str(folder), resume_from_checkpoint=True)
    for name, other in (("data_sha256", "0"), ("validation_sha256", "0"), ("processes", 2), ("stage_data", {"x": 1})):
        (folder / "data.json").write_text(json.dumps({**data, name: other}))
        with pytest.raises(ValueError, match=f"started with other data or processes: {name} was {other}"):
            train(resumed)
    (folder / "data.json").write_text(json.dumps(data))
    train(resumed)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dataset": ["typo.jsonl"]}, "no file typo.jsonl"),
        ({"base_model": "nowhere"}, "The base 'nowhere' could not be loaded"),
        ({"generator": "nowhere"}, "The generator 'nowhere' could not be loaded"),
        ({"generator": "ITSELF"}, "would be overwritten"),
        ({"generator": "ITSELF/../again"}, "would be overwritten"),
        ({"base_model": "ITSELF"}, "would be overwritten"),
        ({"dtype": "fp16"}, "none of PyTorch's"),
    ],
)
def test_a_run_that_cannot_begin_clears_no_other(finished, tmp_path, wrong, message):
    folder = tmp_path / "again"
    shutil.copytree(finished[1], folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    wrong = {name: str(folder) + value[6:] if str(value)[:6] == "ITSELF" else value for name, value in wrong.items()}
    with pytest.raises((OSError, ValueError), match=message):
        train(replace(finished[0], output_dir=str(folder), overwrite_output_dir=True, **wrong))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    fresh = tmp_path / "fresh"
    with pytest.raises((OSError, ValueError)):
        train(replace(finished[0], output_dir=str(fresh), **{**wrong, "dtype": "fp16"}))
    assert not fresh.exists()


def test_a_base_that_has_no_reasoning_encoder_is_refused_at_the_start(options, tmp_path):
    tiny_language_model("bloom").save_pretrained(tmp_path / "base")
    tiny_base_tokenizer().save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match="A BloomForCausalLM cannot be cut .*--alpha 0"):
        train(replace(options, base_model=str(tmp_path / "base")))
    assert not Path(options.output_dir).exists()


def test_the_encoder_finds_its_base_where_the_checkpoint_does(options, base, tmp_path, monkeypatch):
    shutil.copytree(base, tmp_path / "here" / "models" / "tiny-x")
    shutil.copytree(base, tmp_path / "here" / "own")
    options = replace(with_stages(options, "dense", "warm_up"), max_steps=1)
    for name in ("someone/tiny-x", "./own"):
        monkeypatch.chdir(tmp_path / "here")
        folder = tmp_path / "there" / Path(name).name
        train(replace(options, base_model=name, output_dir=str(folder)))
        monkeypatch.chdir(tmp_path)
        encoder = SentenceTransformer(str(folder / "reasoning_encoder"), trust_remote_code=True)
        assert encoder.encode("2 + 2 = 4").shape == (768,)
        card = (folder / "README.md").read_text()
        assert "./own" not in card and str(tmp_path) not in card


def test_paths_are_not_shown_on_the_card(options, tmp_path):
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in load_problems("synthetic_arithmetic", num_samples=40)))
    record = {"train_problems": 1, "validation_problems": 1, "device": "cpu", "stages": {}, "stage_data": {}}
    own = answers_alone(options, dataset={str(file): 3})
    for name, shown in ((str(file), "own.jsonl"), (f"augmented:{file}", "augmented:own.jsonl")):
        card = describe_for_card(replace(own, dataset={name: None}), record)
        assert f"Data: {shown}, own.jsonl (3); " in card or f"Data: {shown}; " in card
        assert str(tmp_path) not in card and "| base_model | tiny-llama |" in card


def test_the_card_counts_the_problems_of_all_stages(options):
    own = with_stages(options, "thoughts", dataset={"synthetic_arithmetic": 5, "synthetic_school": 7})
    sizes = {"train_problems": 11, "validation_problems": 1}
    record = {**sizes, "device": "cpu", "stages": {}, "stage_data": {"thoughts": {**sizes, "train_problems": 12}}}
    card = describe_for_card(replace(own, dataset={"synthetic_arithmetic": 60, "svamp": None}), record)
    assert "Data: synthetic_arithmetic (65), svamp, synthetic_school (7); 11 problems to train on and 1 of" in card
    assert "for the stage `thoughts` 12 and 1 of its own (seed 0)" in card


def test_the_hubs_data_sets_are_named_once(options):
    names = ["augmented:svamp", "augmented:gsm8k", "gsm8k", "synthetic_arithmetic"]
    own = with_stages(options, "thoughts", dataset="svamp")
    assert hub_datasets(replace(own, dataset=names)) == ["ChilleD/SVAMP", "openai/gsm8k"]


@pytest.mark.parametrize("script", ["train_semcot.py", "eval_semcot.py"])
def test_help_from_another_folder(script, tmp_path):
    command = [sys.executable, str(ROOT / script), "--help"]
    result = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0 and "--output_dir" in result.stdout


def test_the_base_as_its_own_generator_learns_to_spell_in_blocks(options):
    """From nothing, on problems that it knows, until blocks are spelt as the text; saved, loaded, resumed."""
    told, started = {"batch_size": 16, "learning_rate": 2e-2}, ["generator", "thought_embedding"]
    spelling, answering = {"token_supervision": 1}, {"answer": 1, "token_supervision": 0.5}
    options = replace(
        options,
        generator="lora:8",
        num_thoughts=24,
        supervised_steps=0,
        dataset={"synthetic_expressions:1": 40},
        stages=[
            Stage(name="thoughts", train=started, losses=spelling, epochs=30, **told),
            Stage(name="answers", train=[*started, "projection"], losses=answering, epochs=5, base_noise=0.1, **told),
        ],
        max_steps=-1,
    )
    with pytest.raises(ValueError, match="the projection, which has no part"):
        replace(options, stages=[Stage(train=["projection"], losses=spelling)])
    train(options)
    history, folder = histories(options)["thoughts"], Path(options.output_dir)
    first, last = ([entry for entry in history if "one_by_one_loss" in entry][end] for end in (0, -1))
    assert last["token_supervision_loss"] < 0.5 * first["token_supervision_loss"]
    assert last["one_by_one_loss"] < last["token_supervision_loss"]
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    assert (model.config.adapter_rank, model.config.thoughts_per_pass) == (8, 6)
    weights = load_file(folder / "model.safetensors")
    assert weights.keys() == {name for name in model.state_dict() if "language_model." not in name}
    assert any(weight.any() for name, weight in weights.items() if name.endswith(".up"))
    batch = AutoTokenizer.from_pretrained(folder)(["What is 3 + 4?"], return_tensors="pt")
    assert model.generate(**batch, max_new_tokens=2, do_sample=False).shape[1] > batch.input_ids.shape[1]
    on = replace(options, generator=str(folder), output_dir=f"{folder}-on")
    assert build_model(on)[0].config.thoughts_per_pass == 6, "a checkpoint of its kind is trained on as it is"
    with pytest.raises(ValueError, match="give supervised_steps 0"):
        build_model(replace(on, supervised_steps=1))
