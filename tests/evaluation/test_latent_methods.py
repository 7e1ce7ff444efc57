"""The methods that think in latent tokens, each as its paper defines it: Coconut, CODI, PCCoT, LOTUS."""

import pytest
import torch
from methods_checks import tiny_method
from torch.nn import functional as F

from semcot.evaluation.methods import TRAINED, codi
from semcot.evaluation.methods.latent import LatentMethod, next_token_loss
from semcot.evaluation.methods.method import padded


def problem(a: int, b: int, c: int) -> dict[str, str]:
    """Two steps, of different lengths."""
    reasoning = f"{a} + {b} = {a + b}, {a + b} * {c} = {(a + b) * c}"
    question = f"Paige had {a} songs and added {b}. She has {c} players. How many songs?"
    return {"question": question, "condensed_reasoning": reasoning, "answer": str((a + b) * c)}


PROBLEMS = [problem(1, 1, 5), problem(11, 8, 2), problem(9, 30, 4), problem(7, 2, 12)]
QUESTIONS = [*(row["question"] for row in PROBLEMS), "How many?"]
every_method = pytest.mark.parametrize("name", [name for name in TRAINED if issubclass(TRAINED[name], LatentMethod)])


def prompts(method, questions=QUESTIONS):
    return padded(method.prompt_ids(questions), method.tokenizer.pad_token_id, "left")


def latents(method, questions=QUESTIONS) -> torch.Tensor:
    """What the base reads as latent tokens, `(batch, num_latents, hidden size)`."""
    ids, mask = prompts(method, questions)
    first = int((ids[0] == method.thought_id).nonzero()[0]) + 1
    return method.think(ids, mask)[0][:, first : first + method.num_latents]


def columns_read(method, monkeypatch) -> list[int]:
    """How many columns the base reads in each pass of the thinking, the question first."""
    read, widths = method.read, []

    def counted(*inputs):
        states = read(*inputs)
        widths.append(states.shape[1])
        return states

    monkeypatch.setattr(method, "read", counted)
    latents(method)
    return widths


def states(method, embeds: torch.Tensor) -> torch.Tensor:
    """The last hidden states of one row, read whole, with no cache."""
    return method.base.base_model(inputs_embeds=embeds, use_cache=False).last_hidden_state


def question_and_begin(method, question: str) -> torch.Tensor:
    (before, _), *_ = method.around([question])
    return torch.cat([method.base.get_input_embeddings()(torch.tensor([before])), method.begin[None, None]], dim=1)


@every_method
@torch.no_grad()
def test_with_the_cache_of_the_thoughts_it_reads_what_it_reads_without(name, family):
    method = tiny_method(name, family)
    ids, mask = prompts(method)
    embeds, cache = method.think(ids, mask)
    assert cache.get_seq_length() > 0
    options = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    without = method.base.generate(inputs_embeds=embeds, **options)
    assert torch.equal(method.generate(ids, **options), torch.cat([ids, without], dim=1))


@every_method
@torch.no_grad()
def test_a_batch_is_answered_as_its_questions_one_by_one(name):
    method = tiny_method(name)
    single = torch.cat([latents(method, [question]) for question in QUESTIONS])
    torch.testing.assert_close(latents(method), single, rtol=1e-4, atol=1e-4)
    assert method.answer(QUESTIONS, 6) == [method.answer([question], 6)[0] for question in QUESTIONS]


@every_method
def test_the_loss_of_a_batch_is_that_of_its_problems_one_by_one(name):
    method = tiny_method(name)
    same = [PROBLEMS[0] | {"question": question} for question in QUESTIONS[:3]]  # as many targets in each
    for stage in (0, 1, 9):
        if method.name in ("codi", "pccot"):  # whose unit, the teacher's deviation, is that of the batch
            together = torch.stack(method.losses(same)[:2])
            alone = torch.stack([torch.stack(method.losses([row])[:2]) for row in same]).mean(0)
        else:
            together = method.loss(same, stage)
            alone = torch.stack([method.loss([row], stage) for row in same]).mean()
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@every_method
@torch.no_grad()
def test_nothing_is_learnt_at_padding(name):
    method = tiny_method(name)

    def loss(problems, texts):
        outputs, labels = method.predict(problems, texts, method.num_latents)
        return next_token_loss(outputs.logits, labels)

    texts = [[5, 6], [5, 6, 7, 8, 9]]
    alone = [loss([row], [text]) * len(text) for row, text in zip(PROBLEMS[:2], texts, strict=True)]
    torch.testing.assert_close(loss(PROBLEMS[:2], texts), sum(alone) / 7, rtol=1e-4, atol=1e-4)


@every_method
@pytest.mark.parametrize("chat", [True, False])
def test_the_latents_stand_between_question_and_cue_and_are_a_setting(name, chat):
    method = tiny_method(name, chat=chat)
    for prompt, (before, cue) in zip(method.prompt_ids(QUESTIONS), method.around(QUESTIONS), strict=True):
        assert prompt == before + [method.thought_id] * (method.num_latents + 2) + cue
    for text, answer in method.texts(PROBLEMS[1:2], slice(1, None)):
        assert method.tokenizer.decode(text + answer[:-1]) == " 19 * 2 = 38\nAnswer: 38"
        assert answer[-1] == method.tokenizer.eos_token_id


# Coconut


@torch.no_grad()
def test_coconuts_thoughts_are_the_last_hidden_states_fed_back():
    method = tiny_method("coconut")
    embeds = question_and_begin(method, QUESTIONS[0])
    length = embeds.shape[1]
    for _ in range(method.num_latents):
        embeds = torch.cat([embeds, states(method, embeds)[:, -1:]], dim=1)
    torch.testing.assert_close(latents(method, QUESTIONS[:1]), embeds[:, length:], rtol=1e-4, atol=1e-4)


def test_coconut_reads_one_column_for_each_thought(monkeypatch):
    method = tiny_method("coconut")
    _, *widths = columns_read(method, monkeypatch)
    assert widths == [1] * (method.num_latents - 1)  # and the last with what follows it


@pytest.mark.parametrize(
    ("stage", "num_latents", "text"),
    [
        (0, 0, " 11 + 8 = 19, 19 * 2 = 38\nAnswer: 38"),
        (1, 2, " 19 * 2 = 38\nAnswer: 38"),
        (2, 4, "Answer: 38"),
        (3, 6, "Answer: 38"),
        (4, 6, "Answer: 38"),
    ],
)
def test_stage_k_of_coconut_has_k_times_c_thoughts_for_the_first_k_steps(monkeypatch, stage, num_latents, text):
    method, given = tiny_method("coconut"), []
    think = method.think
    monkeypatch.setattr(method, "think", lambda *inputs: given.append(inputs) or think(*inputs))
    method.loss(PROBLEMS[1:2], stage)
    ((ids, mask),) = given
    (before, _), *_ = method.around(QUESTIONS[1:2])
    assert mask.all()
    places = [method.thought_id] * (num_latents + 2 if num_latents else 0)
    assert ids[0, : len(before) + len(places)].tolist() == before + places
    assert method.tokenizer.decode(ids[0, len(before) + len(places) :], skip_special_tokens=True) == text


def test_in_its_last_stage_coconut_has_no_steps_however_many_there_are():
    method = tiny_method("coconut", max_stage=1)
    problems = [PROBLEMS[0] | {"condensed_reasoning": "1 + 1 = 2, 2 * 5 = 10, 10 + 0 = 10"}]
    assert method.predict_stage(problems, 1)[1].shape[1] > method.predict_stage(problems, 2)[1].shape[1]
    assert method.prompt_ids(QUESTIONS[:1])[0].count(method.thought_id) == method.thoughts_per_step + 2


def test_coconuts_stages_have_the_papers_shares():
    method = tiny_method("coconut")
    starts = [next(i for i in range(50) if method.stage(i / 50) == stage) for stage in range(5)]
    assert starts == [0, 6, 9, 12, 15]
    assert method.stage(49 / 50) == 4


def test_a_stage_begins_at_its_share_of_the_steps():
    method = tiny_method("lotus", max_stage=4)
    assert [method.stage(step / 25) for step in range(25)] == [0] * 5 + [1, 2, 3, 4] + [5] * 16


def test_coconut_is_trained_through_each_thought(monkeypatch):
    method, fed_back = tiny_method("coconut"), []

    def project(states):
        states.retain_grad()
        fed_back.append(states)
        return states

    monkeypatch.setattr(method, "project", project)
    method.loss(PROBLEMS, 4).backward()
    assert len(fed_back) == method.num_latents
    assert all((states.grad != 0).any(-1).all() for states in fed_back)


# CODI


@torch.no_grad()
def test_codi_matches_the_states_before_the_answer(monkeypatch):
    method, given = tiny_method("codi"), []
    monkeypatch.setattr(codi, "distillation_loss", lambda *parts: given.append(parts) or torch.zeros(()))
    method.losses(PROBLEMS)
    ((teacher, student),) = given
    assert len(teacher) == len(student) == method.base.config.num_hidden_layers
    embed, decode, blanks = method.base.get_input_embeddings(), method.tokenizer.decode, set()
    for i, row in enumerate(PROBLEMS):
        (before, _), *_ = method.around([row["question"]])
        ((written, answer),), ((cue, _),) = (method.texts([row], steps) for steps in (slice(-1), slice(0)))
        blank = answer[:1] if decode(answer[:1]) == " " else []  # some numbers here begin with one, some do not
        blanks.add(bool(blank))
        read = {"output_hidden_states": True, "use_cache": False}
        expected = method.base(torch.tensor([before + written + blank]), **read).hidden_states
        thoughts = torch.cat([method.begin[None], latents(method, [row["question"]])[0], method.end[None]])
        embeds = torch.cat([embed(torch.tensor(before)), thoughts, embed(torch.tensor(cue + blank))])
        found = method.base(inputs_embeds=embeds[None], **read).hidden_states
        for layer in range(len(teacher)):
            torch.testing.assert_close(teacher[layer][i], expected[layer + 1][0, -1], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(student[layer][i], found[layer + 1][0, -1], rtol=1e-4, atol=1e-4)
    assert blanks == {True, False}


def test_codis_distillation_moves_the_student_alone():
    method = tiny_method("codi")
    teacher, _, distance = method.losses(PROBLEMS)
    equals = method.target_ids(["="], end=False)[0][-1]  # which stands in reasonings alone
    table = method.base.get_input_embeddings().weight
    given = torch.autograd.grad(teacher, table, retain_graph=True)[0]
    distilled, begin = torch.autograd.grad(distance, [table, method.begin])
    assert given[equals].abs().max() > 0
    assert distilled[equals].abs().max() == 0
    assert begin.abs().max() > 0


def test_codis_distance_is_smooth_l1_in_units_of_the_teachers_deviation():
    teacher, student = torch.randn(2, 3, 4, 8, generator=torch.Generator().manual_seed(0))
    expected = sum(F.smooth_l1_loss(s, t) / t.std() for t, s in zip(teacher, student, strict=True)) / 3
    torch.testing.assert_close(codi.distillation_loss(list(teacher), list(student)), expected)


@torch.no_grad()
def test_codi_learns_both_tasks_and_the_one_from_the_other():
    method = tiny_method("codi", distillation_weight=3.0)
    teacher, student, distance = method.losses(PROBLEMS)
    torch.testing.assert_close(method.loss(PROBLEMS, 0), teacher + student + 3 * distance)


@torch.no_grad()
def test_codis_teacher_reads_no_last_step_unless_told():
    both = [tiny_method("codi", with_last_step=told).losses(PROBLEMS[:1]) for told in (False, True)]
    assert not torch.allclose(both[0][0], both[1][0])
    torch.testing.assert_close(both[0][1], both[1][1])


# PCCoT


@torch.no_grad()
def test_a_thought_of_pccot_is_settled_after_as_many_iterations_as_its_number():
    sequential = tiny_method("codi", num_latents=5)
    expected = latents(sequential)
    for iterations in range(1, 7):
        method = tiny_method("pccot", iterations=iterations)
        method.load_state_dict(sequential.state_dict(), strict=False)
        same = (latents(method) - expected).abs().amax((0, 2)) < 1e-4
        assert same.tolist() == [number <= iterations for number in range(1, 6)]


@torch.no_grad()
def test_pccot_reads_all_its_thoughts_at_once(monkeypatch):
    method = tiny_method("pccot", iterations=3)
    _, *widths = columns_read(method, monkeypatch)
    assert widths == [method.num_latents] * 2  # and a third time with the answer


# LOTUS


@torch.no_grad()
def test_lotus_reads_all_thoughts_at_once_over_and_over():
    method = tiny_method("lotus", loops=3)
    question, count = question_and_begin(method, QUESTIONS[0]), method.num_latents
    own = method.latent.expand(1, count, -1)
    state = states(method, torch.cat([question, own], dim=1))[:, -count:]
    for _ in range(2):
        state = states(method, torch.cat([question, own + state], dim=1))[:, -count:]
    torch.testing.assert_close(latents(method, QUESTIONS[:1]), own + state, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_every_thought_of_lotus_is_supervised_by_its_token():
    method = tiny_method("lotus")
    labels = method.step_labels(PROBLEMS[:2], 2)
    for row, spelt in zip(PROBLEMS, labels, strict=False):
        first, second = method.target_ids(row["condensed_reasoning"].split(", "), end=False)
        expected = [*first[:8], *[-100] * (8 - len(first)), *second[:8], *[-100] * (8 - len(second))]
        assert spelt.tolist() == expected
    for stage in (1, 2, 3):
        blocks = labels[:, : 8 * min(stage, 2)]
        outputs, text = method.predict_stage(PROBLEMS[:2], stage)
        parts = []
        for row in PROBLEMS[:2]:
            question = question_and_begin(method, row["question"])
            mask = torch.ones(1, question.shape[1] + blocks.shape[1], dtype=torch.long)
            read, _ = method.latents(question, mask, blocks.shape[1])
            parts.append(method.base.lm_head(states(method, torch.cat([question, read], 1))[:, -blocks.shape[1] :]))
        step_loss = F.cross_entropy(torch.cat(parts).flatten(0, 1), blocks.flatten())
        expected = next_token_loss(outputs.logits, text) + method.step_weight * step_loss
        torch.testing.assert_close(method.loss(PROBLEMS[:2], stage), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("coconut", {"stage_share": 0.0}, "needs a stage_share above 0"),
        ("lotus", {"first_share": 0.92}, r"below 1, .* got 0.92 \+ 2 \* 0.04"),
        ("coconut", {"max_stage": 0}, "coconut needs at least 1 latent token, got 0"),
        ("pccot", {"iterations": 0}, "iterations must be at least 1, got 0"),
        ("lotus", {"loops": 0}, "loops must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_refused(name, settings, said):
    with pytest.raises(ValueError, match=said):
        tiny_method(name, **settings)
