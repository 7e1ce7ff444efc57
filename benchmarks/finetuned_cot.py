"""
The upper comparison: the same base, all of it fine-tuned to write the condensed reasoning before the answer, on
problems of a recipe for SemCoT. It is as slow as its reasoning is long, and no longer the frozen base.
`python benchmarks/finetuned_cot.py configs/quickstart_real.yaml --data multiarith --output_dir results/finetuned_cot`
"""

import argparse
import shlex
import sys
from pathlib import Path

import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments, set_seed
from transformers.utils import ModelOutput

sys.path.insert(0, str(Path(__file__).parents[1]))
from semcot.data import fingerprint, load_problems
from semcot.distillation import IGNORED, DistillationCollator, DistillationTrainer
from semcot.evaluation import describe_machine, evaluate_method, load_model, with_speedups
from semcot.evaluation.methods.cot import ExplicitCoT
from semcot.evaluation.methods.method import prompt_without_thoughts
from semcot.evaluation.report import format_table, prepare_output_dir, write_report
from semcot.files import write_json
from semcot.training.options import parse_options
from semcot.training.run import load_data


class FineTunedCoT(ExplicitCoT):
    """The condensed reasoning, then the answer cue, then the answer, as trained here."""

    name = "cot_finetuned"
    max_new_tokens = 96

    def prompts(self, questions: list[str]) -> list[str]:
        cue = self.model.config.answer_cue
        return [prompt_without_thoughts(self.tokenizer, question).removesuffix(cue) for question in questions]


class PlainLanguageModel(nn.Module):
    """A language model with the interface that [`DistillationTrainer`] trains: logits where there are labels."""

    def __init__(self, language_model: PreTrainedModel) -> None:
        super().__init__()
        self.language_model = language_model

    def forward(self, input_ids, attention_mask, logits_to_keep, **_) -> ModelOutput:
        return self.language_model(input_ids=input_ids, attention_mask=attention_mask, logits_to_keep=logits_to_keep)


def tokenize(problems: Dataset, method: FineTunedCoT, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """`prompt_ids` (the question) and `answer_ids` (the condensed reasoning, the cue, the answer)."""

    def ids(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=False).input_ids

    cue = method.model.config.answer_cue.strip()
    prompts = ids(method.prompts(problems["question"]))
    texts = zip(problems["condensed_reasoning"], problems["answer"], strict=True)
    answers = [[*answer, tokenizer.eos_token_id] for answer in ids([f" {text}\n{cue} {gold}" for text, gold in texts])]
    columns = {"prompt_ids": prompts, "answer_ids": answers, "explanation_ids": [[]] * len(prompts)}
    lengths = [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)]
    return Dataset.from_dict({**columns, "lens_ids": [[IGNORED]] * len(prompts), "length": lengths})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--model", default=".", help="checkpoint whose base, tokenizer and prompts are used")
    parser.add_argument("--problems", type=int, default=8000, help="how many of the recipe's problems, each read once")
    parser.add_argument("--learning_rate", type=float, default=3e-4)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--data", nargs="+", default=["multiarith"], help="what to evaluate on: NAME or NAME,n,seed")
    parser.add_argument("--output_dir", required=True)
    arguments = parser.parse_args()
    options = parse_options([arguments.recipe, "--output_dir", arguments.output_dir])
    asked = [parse_source(source) for source in arguments.data]
    folder = prepare_output_dir(arguments.output_dir)
    set_seed(options.seed)
    train_set, validation_set = load_data(options)
    if not arguments.batch_size <= arguments.problems <= len(train_set):
        parser.error(f"--problems must be from {arguments.batch_size}, a batch, to {len(train_set)}, all there are")
    train_set = train_set.select(range(arguments.problems))
    sources = [(name, seed, load_problems(name, "eval", num_samples=number, seed=seed)) for name, number, seed in asked]
    model, tokenizer = load_model(arguments.model)
    base = model.language_model
    base.set_attn_implementation(options.attention or base.config._attn_implementation)
    base.requires_grad_(True)
    method = FineTunedCoT(model, tokenizer)
    trainer = DistillationTrainer(
        PlainLanguageModel(base),
        TrainingArguments(
            output_dir=str(folder / "phases"),
            max_steps=arguments.problems // arguments.batch_size,
            per_device_train_batch_size=arguments.batch_size,
            per_device_eval_batch_size=arguments.batch_size,
            learning_rate=arguments.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.03,
            weight_decay=options.weight_decay,
            bf16=options.autocast,
            use_cpu=not torch.cuda.is_available(),
            remove_unused_columns=False,
            save_strategy="no",
            logging_steps=options.logging_steps,
            report_to="none",
            seed=options.seed,
        ),
        train_dataset=tokenize(train_set, method, tokenizer),
        eval_dataset=tokenize(validation_set, method, tokenizer),
        data_collator=DistillationCollator(tokenizer.pad_token_id, header_length=0),
        alpha=0,
    )
    trainer.train()
    trainer.evaluate()
    write_json(folder / "losses.json", trainer.state.log_history)
    base.eval()

    command = shlex.join(["python", f"benchmarks/{Path(__file__).name}", *sys.argv[1:]])
    for name, seed, problems in sources:
        summary, predictions = evaluate_method(method, problems)
        context = {"dataset": name, "data_sha256": fingerprint(problems), "model": options.base_model, "seed": seed}
        context |= {"train_problems": arguments.problems, **describe_machine(model)}
        results = with_speedups([{**summary, **context}])
        write_report(prepare_output_dir(folder / Path(name).stem), results, predictions, command)
        print(f"\n{name}\n{format_table(results)}")


def parse_source(source: str) -> tuple[str, int | None, int]:
    """Name, number and seed of "synthetic_arithmetic,200,3", or of a bare name."""
    name, num_samples, seed = (*source.split(","), "", "")[:3]
    return name, int(num_samples) if num_samples else None, int(seed or 0)


if __name__ == "__main__":
    main()
