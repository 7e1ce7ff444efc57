"""Keys and values of questions that were computed once give the losses of those that are computed in every step."""

import shutil
from collections import namedtuple

import pytest
import torch
from conftest import FAMILIES, TEXTS, tiny_language_model, tiny_semcot
from datasets import Dataset

from modeling_semcot import SemCoTForCausalLM, decoder_layers
from semcot.distillation import DistillationCollator, tokenize_problems
from semcot.distillation.question_cache import QuestionCache
from semcot.training.run import header_length


@pytest.fixture
def parts(request):
    family, chat = getattr(request, "param", ("llama", True))
    model, tokenizer = tiny_semcot(family, chat=chat)
    questions = [*TEXTS, "the coin?", TEXTS[0]]  # the blank before it is no part of the header, as it may merge with it
    given = {"reasoning": "", "condensed_reasoning": "", "answer": "12"}
    rows = tokenize_problems(Dataset.from_list([{"question": q, **given} for q in questions]), tokenizer, 3)
    fixed = header_length(model, tokenizer)
    return model, rows, fixed, DistillationCollator(tokenizer.pad_token_id, fixed)


def loss_of(model, batch):
    inputs = {k: v for k, v in batch.items() if k not in ("explanation_labels", "lens_labels")}
    model.zero_grad()
    output = model.train()(**inputs)
    output.loss.backward()
    return output, {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("parts", [(family, chat) for family in FAMILIES for chat in (True, False)], indirect=True)
@pytest.mark.parametrize("batch_size, multiple", [(1, 1), (2, 8), (32, 1)])
def test_losses_and_gradients_are_the_same(parts, batch_size, multiple, tmp_path):
    model, rows, fixed, collate = parts
    collate.pad_to_multiple_of = multiple
    cache = QuestionCache(model, rows, fixed, tmp_path / "states.bin", batch_size=batch_size)
    for chosen in ([0, 1, 2, 3], [3], [2, 4]):
        batch = [rows[i] for i in chosen]
        plain, gradients = loss_of(model, collate(batch))
        collate.question_cache = cache
        output, others = loss_of(model, collate(batch))
        collate.question_cache = None
        torch.testing.assert_close(output.loss, plain.loss, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(output.logits, plain.logits, atol=1e-4, rtol=1e-4)
        assert gradients.keys() == others.keys() and gradients
        for name, gradient in gradients.items():
            torch.testing.assert_close(others[name], gradient, atol=1e-4, rtol=1e-4)


def test_the_base_does_not_see_the_question(parts, tmp_path):
    model, rows, fixed, collate = parts
    collate.question_cache = QuestionCache(model, rows, fixed, tmp_path / "states.bin")
    seen = []
    layer = decoder_layers(model.language_model.base_model)[0]
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    batch = collate(list(rows))
    first_thought = (batch["input_ids"] == model.config.thought_token_id).any(0).nonzero()[0].item()
    loss_of(model, batch)
    model.eval()(**{name: batch[name] for name in ("input_ids", "attention_mask", "question_states")})
    assert seen == [batch["input_ids"].shape[1] - first_thought] * 2, "in training and in validation"


def test_the_file_is_written_once(parts, tmp_path):
    model, rows, fixed, collate = parts
    file = tmp_path / "new" / "states.bin"
    first = QuestionCache(model, rows, fixed, file)
    written = file.stat().st_mtime_ns
    prompts = [list(row["prompt_ids"]) for row in rows]
    again = QuestionCache(model, rows.select([4, 3, 2, 1]), fixed, file)  # the same questions
    assert torch.equal(again(prompts), first(prompts))
    assert file.stat().st_mtime_ns == written and [path.name for path in file.parent.iterdir()] == ["states.bin"]
    layers, heads, width = 4, 2, 8
    tokens = {tuple(p[fixed : p.index(model.config.thought_token_id)]) for p in prompts}
    assert file.stat().st_size == sum(map(len, tokens)) * layers * 2 * heads * width * 4
    with pytest.raises(OSError, match="holds the keys and values of other questions. Remove it"):
        QuestionCache(model, rows.select([0, 1]), fixed, file)


def test_questions_of_one_length_lie_in_an_order_of_their_own(parts, tmp_path):
    model, rows, fixed, _ = parts
    header = rows[0]["prompt_ids"][:fixed]
    prompts = [[*header, i, j, model.config.thought_token_id] for i in range(3, 11) for j in range(3, 11)]
    first, again = (
        QuestionCache(model, Dataset.from_dict({"prompt_ids": order}), fixed, tmp_path / "states.bin")
        for order in (prompts, prompts[::-1])
    )
    assert torch.equal(again(prompts), first(prompts))


def test_the_file_is_whole_or_not_there(parts, tmp_path, killed_at_renames):
    model, rows, fixed, _ = parts
    with pytest.raises(KeyboardInterrupt):
        QuestionCache(model, rows, fixed, tmp_path / "states.bin")
    assert not (tmp_path / "states.bin").exists()


def test_under_autocast_they_are_kept_in_bfloat16(parts, tmp_path):
    model, rows, fixed, collate = parts
    cache = QuestionCache(model, rows, fixed, tmp_path / "states.bin", autocast=True)
    batch = collate(list(rows))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain, _ = loss_of(model, batch)
        states = cache([row["prompt_ids"] for row in rows])
        output, _ = loss_of(model, {**batch, "question_states": states})
    assert states.dtype == torch.bfloat16
    torch.testing.assert_close(output.loss, plain.loss, atol=0.02, rtol=0.02)
    model.language_model.bfloat16()
    assert QuestionCache(model, rows, fixed, tmp_path / "own.bin")([rows[0]["prompt_ids"]]).dtype == torch.bfloat16


def test_no_room_for_it(parts, tmp_path, monkeypatch):
    model, rows, fixed, _ = parts
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(free=1000))
    with pytest.raises(OSError, match=r"4 questions take .* GB free .* Train without --cache_questions"):
        QuestionCache(model, rows, fixed, tmp_path / "states.bin")
    assert not list(tmp_path.iterdir())


def test_states_that_reach_into_the_thoughts_are_refused(parts, tmp_path):
    model, rows, fixed, collate = parts
    cache = QuestionCache(model, rows, fixed, tmp_path / "states.bin")
    batch = collate([rows[3]])
    with pytest.raises(ValueError, match=r"question_states go over \d+ columns, but the thoughts begin at \d+"):
        model(input_ids=batch["input_ids"], question_states=cache([rows[0]["prompt_ids"]]))


def test_a_header_that_is_another_in_some_prompts_is_refused(parts, tmp_path):
    model, rows, fixed, _ = parts
    with pytest.raises(ValueError, match=f"first {fixed + 2} tokens are not the same in all prompts"):
        QuestionCache(model, rows, fixed + 2, tmp_path / "states.bin")


@pytest.mark.parametrize("parts", [("mistral", True)], indirect=True)
def test_a_sliding_window_that_is_shorter_than_the_longest_prompt_is_refused(parts, tmp_path):
    model, rows, fixed, _ = parts
    longest = max(row["prompt_ids"].index(model.config.thought_token_id) for row in rows)
    model.language_model.config.sliding_window = longest + 1
    QuestionCache(model, rows, fixed, tmp_path / "states.bin")
    model.language_model.config.sliding_window = longest
    for file in ("states.bin", "others.bin"):
        with pytest.raises(ValueError, match=f"keeps the keys of its last {longest - 1} tokens only. Train without"):
            QuestionCache(model, rows, fixed, tmp_path / file)
    assert [path.name for path in tmp_path.iterdir()] == ["states.bin"]


@pytest.mark.parametrize(
    "family, reason", [("qwen3_5_text", "keys and values alone"), ("deepseek_v3", "several shapes")]
)
def test_bases_that_keep_something_else_are_refused(family, reason):
    sizes = {"num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 16, "n_routed_experts": 4, "n_group": 1}
    sizes |= {"topk_group": 1, "num_experts_per_tok": 2, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
    base = tiny_language_model(family, **(sizes if family == "deepseek_v3" else {}))
    model = SemCoTForCausalLM.from_components(base, 2, num_thoughts=3)
    with pytest.raises(ValueError, match=f"{reason}. Train without --cache_questions"):
        QuestionCache.check(model, [[5, 6, 7, model.config.thought_token_id]])


def test_prompts_that_begin_with_the_question(parts, tmp_path):
    model, rows, _, collate = parts
    collate.header_length = 0
    plain, _ = loss_of(model, collate(list(rows)))
    collate.question_cache = QuestionCache(model, rows, 0, tmp_path / "states.bin")
    output, _ = loss_of(model, collate(list(rows)))
    torch.testing.assert_close(output.loss, plain.loss, atol=1e-5, rtol=1e-5)
