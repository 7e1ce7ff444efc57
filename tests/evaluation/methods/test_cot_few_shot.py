"""Few-shot chain of thought: which examples stand where, and that the base reads them."""

import pytest
from conftest import QUESTIONS, tiny_semcot
from methods_checks import PROBLEMS

from semcot.data import load_problems
from semcot.evaluation.methods import FewShotCoT, open_method
from semcot.evaluation.methods.cot import INSTRUCTION, OPENING


def test_examples_are_earlier_turns_of_a_chat():
    method = FewShotCoT(*tiny_semcot(), PROBLEMS[:2])
    turns = [
        f"<|im_start|>user\n{problem['question']}{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"
        f"{problem['reasoning']}\nAnswer: {problem['answer']}<|im_end|>\n"
        for problem in PROBLEMS[:2]
    ]
    asked = f"<|im_start|>user\nHow many?{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"
    assert method.prompts(["How many?"]) == ["".join(turns) + asked]


def test_without_a_chat_format_they_stand_above_the_question():
    method = FewShotCoT(*tiny_semcot(chat=False), PROBLEMS[:1])
    (problem,) = PROBLEMS[:1]
    example = f"Question:\n{problem['question']}\nAnswer: {OPENING.strip()} {problem['reasoning']}\n"
    example += f"Answer: {problem['answer']}\n\n"
    assert method.prompts(["How many?"]) == [f"{example}Question:\nHow many?\nAnswer:{OPENING}"]


def test_answers_of_a_batch_are_those_of_each_question():
    method = FewShotCoT(*tiny_semcot(), PROBLEMS[:1])
    assert method.answer(QUESTIONS, 12) == [method.answer([question], 12)[0] for question in QUESTIONS]


def test_examples_are_drawn_from_a_train_split_by_name(semcot):
    method = open_method("cot_few_shot=synthetic_coin_flip", *semcot)
    train = load_problems("synthetic_coin_flip", "train").to_list()
    assert len(method.examples) == 4 and all(example in train for example in method.examples)
    assert open_method("cot_few_shot=synthetic_coin_flip", *semcot).examples == method.examples
    assert len(open_method("cot_few_shot=synthetic_arithmetic:1-2,7", *semcot).examples) == 7
    with pytest.raises(ValueError, match="cot_few_shot needs examples: give cot_few_shot=DATA"):
        open_method("cot_few_shot", *semcot)
    with pytest.raises(ValueError, match="asks for 2000 examples; 1000 problems of the train split"):
        open_method("cot_few_shot=synthetic_coin_flip,2000", *semcot)
