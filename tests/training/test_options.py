"""Recipes: what they may say, in a file, as flags and in Python."""

from dataclasses import fields, replace

import pytest
from conftest import ROOT

from semcot.training.options import Stage, TrainOptions, flat, parse_options

RECIPES = sorted(path for path in (ROOT / "configs").glob("*.yaml") if path.stem != "methods")  # which compares several


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_parse(recipe):
    options = parse_options([str(recipe), "--output_dir", "x"])
    assert options.base_model and options.stages
    if options.aligns:
        without = parse_options([str(recipe), "--output_dir", "x", "--alpha", "0"])
        assert not without.aligns and not without.stages[0].trains_encoder
        assert all(stage.losses["answer"] == 1 for stage in without.stages if "answer" in stage.losses)


def test_there_are_few_options():
    assert len(fields(TrainOptions)) + len(fields(Stage)) <= 33


def test_a_recipe_and_flags_that_override_it(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "generator: 3\nalpha: 0.25\ndataset: {gsm8k: 100, svamp: }\n"
        "stages:\n- {name: e, train: reasoning_encoder}\n"
        "- {name: g, train: [generator], losses: {answer: 0.5, alignment: 0.5}, epochs: 2}\n"
    )
    options = parse_options([str(recipe), "--output_dir", "x"])
    assert (options.generator, options.dataset) == (3, {"gsm8k": 100, "svamp": None})
    assert options.stages[1].losses == {"answer": 0.75, "alignment": 0.25}
    flags = "--output_dir=y --generator own/model --alpha 0.5 --dataset svamp=7 coin_flip --thought_offset -1"
    flags += " --stages.g.epochs 0.5 --stages.g.losses.token_supervision 2 --trainer.weight_decay 1e-3"
    flags += " --trainer.report_to trackio --trainer.bf16 False --encoder_layers 1 2 --push_to_hub --max_steps 3"
    options = parse_options([str(recipe), *flags.split()])
    assert (options.output_dir, options.generator, options.thought_offset) == ("y", "own/model", -1)
    assert options.dataset == {"svamp": 7, "coin_flip": None} and options.encoder_layers == [1, 2]
    assert options.stages[1].epochs == 0.5
    assert options.stages[1].losses == {"answer": 0.5, "alignment": 0.5, "token_supervision": 2}
    assert options.trainer["weight_decay"] == 1e-3 and options.trainer["report_to"] == "trackio"
    assert options.trainer["save_steps"] == 200 and not options.autocast
    assert options.push_to_hub is True and options.max_steps == 3
    options = parse_options([str(recipe), "--output_dir", "7", "--generator", "2", "--train_file", "a.json", "b.csv"])
    assert options.dataset == {"a.json": None, "b.csv": None}
    assert (options.output_dir, options.generator) == ("7", 2)


def test_without_a_recipe_it_is_the_papers_method():
    options = parse_options("--generator 2 --output_dir x --stages.warm_up.epochs 3".split())
    assert [stage.name for stage in options.stages] == ["encoder_dense", "encoder", "warm_up", "generator"]
    assert options.stages[2].epochs == 3 and options.stages[3].losses == {"answer": 0.5, "alignment": 0.5}


def test_a_stage_without_epochs_and_a_loss_without_weight_are_left_out(options):
    assert [stage.name for stage in replace(options, alpha=0.0).stages] == ["warm_up", "thoughts", "generator"]
    *others, last = options.stages
    assert replace(options, stages=[*others, replace(last, epochs=0)]).stages == others
    weights = {"answer": 0.0, "token_supervision": 1.0, "alignment": 0.0}
    assert replace(last, losses=weights).losses == {"answer": 0.0, "token_supervision": 1.0}


@pytest.mark.parametrize(
    "flags, message",
    [
        ("", "generator: Field required"),
        ("--generator 2 --alpha 1.5", "alpha: .*less than or equal to 1"),
        ("--generator 2 --validation_fraction 0", "validation_fraction: .*greater than 0"),
        ("--generator 2 --dataset gsm8k=0", "dataset.gsm8k: .*greater than or equal to 1"),
        ("--generator 2 --dataset gsm8k=few", "dataset.gsm8k: .*valid integer"),
        ("--generator 2 --thought_offset 1", "thought_offset: .*less than or equal to 0"),
        ("--generator 2 --encoder_layers 1", "encoder_layers: .*at least 2"),
        ("--generator lora:8", "give supervised_steps 0"),
        ("--generator 2 --supervised_steps 4", "supervised_steps must lie between 1 and 3"),
        ("--generator 2 --stages.nobody.epochs 1", "no stage is named nobody"),
        ("--generator 2 --stages.generator.epoch 1", "stages.3.epoch: Unexpected"),
        ("--generator 2 --stages.generator.epochs many", "stages.3.epochs: .*valid number"),
        ("--generator 2 --stages.generator.batch_size 0", "stages.3.batch_size"),
        ("--generator 2 --stages.generator.losses.lens 1", "stages.3.losses.lens"),
        ("--generator 2 --stages.encoder.epochs 0 --stages.encoder_dense.epochs 0", "put a stage that trains"),
        ("--generator 2 --stages.encoder.losses.answer 1", "a loss of its own"),
    ],
)
def test_what_a_recipe_cannot_say(flags, message):
    with pytest.raises(ValueError, match=message):
        parse_options(["--output_dir", "x", *flags.split()])


@pytest.mark.parametrize(
    "stages, message",
    [
        ([], "nothing would be trained"),
        ([{"train": "generator"}], "stage generator has no loss"),
        ([{"train": "generator", "losses": {"token_supervision": 0}}], "stage generator has no loss"),
        ([{"train": "generator", "losses": {"answer": 1}}] * 2, "names of their own"),
        (
            [{"train": "generator", "losses": {"answer": 1}}, {"train": "reasoning_encoder"}],
            "put it before all others",
        ),
    ],
)
def test_stages_that_cannot_be(stages, message):
    with pytest.raises(ValueError, match=message):
        TrainOptions(output_dir="x", generator=2, stages=stages)


def test_unknown_flags_and_files_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse_options(["--output_dir", "x", "--generator", "2", "--generator_layers", "3"])
    assert "unrecognized arguments: --generator_layers 3" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="no recipe at"):
        parse_options([str(tmp_path / "other.yaml"), "--output_dir", "x"])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("generator: 3\nepochs: 2\n")
    with pytest.raises(ValueError, match="epochs: Unexpected"):
        parse_options([str(recipe), "--output_dir", "x"])
    recipe.write_text("- generator: 3\n")
    with pytest.raises(ValueError, match="must map option names to values"):
        parse_options([str(recipe), "--output_dir", "x"])


def test_every_option_has_a_dotted_name(options):
    found = flat({"seed": 1, "stages": [{"name": "warm_up", "epochs": 2}], "trainer": {"optim": "adafactor"}})
    assert found == {"seed": 1, "stages.warm_up.epochs": 2, "trainer.optim": "adafactor"}
