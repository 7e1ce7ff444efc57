"""What people's tools do with the model: transformers' Trainer, accelerate's offloading."""

import re

import accelerate
import pytest
import torch
from conftest import QUESTIONS, ROOT, prompts, tiny_semcot, write_adapter
from transformers import DataCollatorForLanguageModeling, DataCollatorForSeq2Seq, Trainer, TrainingArguments

from modeling_semcot import SemCoTForCausalLM


def rows(tokenizer) -> list[dict]:
    """Prompts with answers of different lengths, which alone are predicted."""
    rows = []
    for question, answer in zip(QUESTIONS[:3], (" 42", " 7", " yes"), strict=True):
        prompt = tokenizer(question).input_ids
        answer = tokenizer(answer, add_special_tokens=False).input_ids
        rows.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
    return rows


def trainer_of(model, tokenizer, folder, collator=None, **options) -> Trainer:
    options = {"report_to": "none", "use_cpu": True, "save_strategy": "no", "disable_tqdm": True} | options
    collator = DataCollatorForSeq2Seq(tokenizer) if collator is None else collator
    return Trainer(model, TrainingArguments(str(folder), **options), collator, rows(tokenizer), rows(tokenizer))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_trainers_loss_is_that_of_the_next_token(semcot, tmp_path, smoothing):
    model, tokenizer = semcot
    batch = DataCollatorForSeq2Seq(tokenizer)([{**row} for row in rows(tokenizer)])
    scores = model(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits.log_softmax(-1)[:, :-1]
    wanted = batch["labels"][:, 1:]
    scores, wanted = scores[wanted != -100], wanted[wanted != -100]
    right = scores.take_along_dim(wanted.unsqueeze(-1), dim=-1).mean()
    expected = -(1 - smoothing) * right - smoothing * scores.mean()
    trainer = trainer_of(model, tokenizer, tmp_path, label_smoothing_factor=smoothing, learning_rate=0.0)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected.item(), abs=1e-4)
    assert trainer.train().training_loss == pytest.approx(expected.item(), abs=1e-4)


def test_trainers_predictions_are_the_logits(semcot, tmp_path):
    model, tokenizer = semcot
    trainer = trainer_of(model, tokenizer, tmp_path, per_device_eval_batch_size=1)
    found = trainer.predict(rows(tokenizer)[:1])
    ids = torch.tensor([rows(tokenizer)[0]["input_ids"]])
    torch.testing.assert_close(torch.tensor(found.predictions), model(ids).logits, atol=1e-4, rtol=1e-4)
    assert found.label_ids.tolist() == [rows(tokenizer)[0]["labels"]]


def test_a_collator_that_has_the_placeholders_predicted_is_refused(semcot, tmp_path):
    model, tokenizer = semcot
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    trainer = trainer_of(model, tokenizer, tmp_path, collator)
    trainer.train_dataset = [{"input_ids": row["input_ids"]} for row in rows(tokenizer)]
    with pytest.raises(ValueError, match="labels must be -100 on every <thought>"):
        trainer.train()


def test_the_documented_lines_for_trainer(semcot, tmp_path, monkeypatch):
    model, tokenizer = semcot
    model.config.checkpoint_kind = "full"
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "libraries.md").read_text(encoding="utf-8"), re.DOTALL)
    (lines,) = (block for block in blocks if "Trainer(" in block)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    exec(compile(lines, "libraries.md", "exec"), {"model": model, "tokenizer": tokenizer})
    saved = SemCoTForCausalLM.from_pretrained("runs/trainer").state_dict()
    changed = {name.split(".")[0] for name, weight in saved.items() if not torch.equal(weight, before[name])}
    assert changed == {"generator", "thought_embedding", "projection"}


def cpu_offload(folder, aside):
    return accelerate.cpu_offload(SemCoTForCausalLM.from_pretrained(folder), execution_device="cpu")


def disk_offload(folder, aside):
    return accelerate.disk_offload(SemCoTForCausalLM.from_pretrained(folder), str(aside), execution_device="cpu")


def map_to_disk(folder, aside):
    return SemCoTForCausalLM.from_pretrained(folder, device_map={"": "disk"}, offload_folder=str(aside))


@pytest.mark.parametrize("generator", [{}, {"generator": "base", "adapter_rank": 2, "thoughts_per_pass": 2}])
@pytest.mark.parametrize("kind", ["adapter", "full"])
@pytest.mark.parametrize("offload", [cpu_offload, disk_offload, map_to_disk])
def test_offloaded_weights_are_brought_in(tmp_path, offload, kind, generator):
    tokenizer = tiny_semcot()[1]
    model = SemCoTForCausalLM.from_pretrained(write_adapter(tmp_path, **generator))
    model.save_pretrained(tmp_path / "kind", checkpoint_kind=kind)
    offloaded = offload(tmp_path / "kind", tmp_path / "aside")
    assert next(offloaded.language_model.parameters()).is_meta
    batch = prompts(tokenizer)
    with torch.no_grad():
        torch.testing.assert_close(offloaded.think(**batch), model.think(**batch))
        assert kind == "adapter" or offloaded.thought_embedding.is_meta, "it is put back"
        torch.testing.assert_close(offloaded(**batch).logits, model(**batch).logits)
    expected = model.generate(**batch, max_new_tokens=4, do_sample=False)
    assert offloaded.generate(**batch, max_new_tokens=4, do_sample=False).tolist() == expected.tolist()
    assert next(offloaded.language_model.parameters()).is_meta
    assert kind == "adapter" or offloaded.thought_embedding.is_meta
