"""Weight averaging: small copies of trained checkpoints, and averages of several."""

import json

import pytest
import torch
from conftest import tiny_language_model, tiny_semcot
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from semcot.training.weight_averaging import AveragingOptions, average_weights


@pytest.fixture
def checkpoints(tmp_path):
    """Two adapters of one base, the second "trained on", and the base they name where it is looked for."""
    model, tokenizer = tiny_semcot()
    model.language_model.save_pretrained(tmp_path / "models" / "tiny-llama")
    model.config.base_model_name_or_path = "someone/tiny-llama"
    model.config.local_base_model = str(tmp_path / "models" / "tiny-llama")
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        model.save_pretrained(folder, checkpoint_kind="adapter")
        tokenizer.save_pretrained(folder)
        with torch.no_grad():
            for parameter in (*model.generator.parameters(), *model.projection.parameters()):
                parameter += torch.randn(parameter.shape, generator=torch.manual_seed(0)) * 0.1
    return folders


def test_a_copy_is_stored_in_bfloat16_and_loads_in_float32(checkpoints, tmp_path):
    average_weights(AveragingOptions(model=[str(checkpoints[1])], output_dir=str(tmp_path / "copy")))
    stored, own = (load_file(folder / "model.safetensors") for folder in (tmp_path / "copy", checkpoints[1]))
    assert stored.keys() == own.keys()
    for name, weight in stored.items():
        assert torch.equal(weight, own[name].bfloat16())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "copy", trust_remote_code=True)
    assert model.dtype == torch.float32
    assert str(tmp_path) not in (tmp_path / "copy" / "config.json").read_text()
    saved_tokenizer = json.loads((tmp_path / "copy" / "tokenizer_config.json").read_text())
    assert saved_tokenizer["padding_side"] == "left"
    assert not {"is_local", "local_files_only"} & saved_tokenizer.keys()


def test_the_mean_of_several(checkpoints, tmp_path):
    options = {"output_dir": str(tmp_path / "mean"), "weights_dtype": "float32"}
    for folder in checkpoints:  # in float32, whatever they load in
        config = (folder / "config.json").read_text()
        (folder / "config.json").write_text(config.replace('"float32"', '"bfloat16"'))
    (checkpoints[0] / "tokenizer.json").unlink()  # the last one's goes along
    average_weights(AveragingOptions(model=[str(folder) for folder in checkpoints], **options))
    first, second, mean = (load_file(f / "model.safetensors") for f in (*checkpoints, tmp_path / "mean"))
    assert any(not torch.equal(first[name], second[name]) for name in first)
    for name, weight in mean.items():
        torch.testing.assert_close(weight, (first[name] + second[name]) / 2)


@pytest.mark.parametrize("where", ["models", "gone"])
def test_a_base_that_is_a_folder_is_refused(checkpoints, tmp_path, where):
    config = checkpoints[0] / "config.json"
    config.write_text(config.read_text().replace("someone/tiny-llama", str(tmp_path / where / "tiny-llama")))
    with pytest.raises(ValueError, match="names its base by a folder, .*which others do not have"):
        average_weights(AveragingOptions(model=[str(checkpoints[0])], output_dir=str(tmp_path / "copy")))


def test_no_mean_over_different_bases(checkpoints, tmp_path):
    config = checkpoints[0] / "config.json"
    config.write_text(config.read_text().replace("someone/tiny-llama", "someone/other"))
    tiny_language_model().save_pretrained(tmp_path / "models" / "other")
    with pytest.raises(ValueError, match="first differs from .*second in base_model_name_or_path; their average"):
        average_weights(
            AveragingOptions(model=[str(folder) for folder in checkpoints], output_dir=str(tmp_path / "mean"))
        )
    assert not (tmp_path / "mean").exists()


def test_no_mean_over_what_does_not_fit_and_no_weights_in_whole_numbers(checkpoints, tmp_path):
    options = {"model": [str(folder) for folder in checkpoints], "output_dir": str(tmp_path / "mean")}
    model, tokenizer = tiny_semcot(generator=3, base_model_name_or_path="someone/tiny-llama")
    model.save_pretrained(checkpoints[0], checkpoint_kind="adapter")
    with pytest.raises(ValueError, match="first differs from .*second in weights of other shapes"):
        average_weights(AveragingOptions(**options))
    for name, other in (("num_thoughts", 2), ("thought_offset", -1)):
        config = json.loads((checkpoints[1] / "config.json").read_text()) | {name: other}
        (checkpoints[0] / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=f"first differs from .*second in {name}"):
            average_weights(AveragingOptions(**options))
    for dtype in ("int8", "foo"):
        with pytest.raises(ValueError, match=f"dtype '{dtype}' is none of PyTorch's"):
            average_weights(AveragingOptions(**options, weights_dtype=dtype))
    assert not (tmp_path / "mean").exists()
