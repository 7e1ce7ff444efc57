"""
The upper comparison: the same base, all of it fine-tuned to write the condensed reasoning before the answer. It is as
slow as its reasoning is long, and no longer the frozen base. Problems are named NAME or NAME,number,seed.

    SEMCOT_DATA_DIR=data python -m analysis.finetuned_cot --train synthetic_arithmetic,4000,0 \\
        --data multiarith synthetic_arithmetic,200,3 --output results/finetuned_cot.json
"""

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

from datasets import Dataset, concatenate_datasets
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments, set_seed

from semcot.data import fingerprint, load_problems
from semcot.evaluation import describe_machine, evaluate_method, format_tables, load_model, with_comparisons
from semcot.evaluation.methods import ExplicitCoT, prompt_without_thoughts
from semcot.files import write_json

IGNORED = -100


class FineTunedCoT(ExplicitCoT):
    """The condensed reasoning, then the answer cue, then the answer, as trained here."""

    name = "cot_finetuned"
    max_new_tokens = 96

    def prompts(self, questions: list[str]) -> list[str]:
        cue = self.model.config.answer_cue
        return [prompt_without_thoughts(self.tokenizer, question).removesuffix(cue) for question in questions]

    def training_rows(self, problems: Dataset) -> Dataset:
        """`input_ids` of question, condensed reasoning, cue and answer; `labels` of all but the question."""
        cue = self.model.config.answer_cue.strip()
        texts = zip(problems["condensed_reasoning"], problems["answer"], strict=True)
        written = [f" {reasoning}\n{cue} {answer}" for reasoning, answer in texts]
        asked, answered = (
            self.tokenizer(part, add_special_tokens=False).input_ids
            for part in (self.prompts(problems["question"]), written)
        )
        answered = [[*ids, self.tokenizer.eos_token_id] for ids in answered]
        rows = list(zip(asked, answered, strict=True))
        return Dataset.from_dict(
            {
                "input_ids": [question + answer for question, answer in rows],
                "labels": [[IGNORED] * len(question) + answer for question, answer in rows],
            }
        )


def load_source(source: str, split: str) -> tuple[dict[str, str | int], Dataset]:
    """The problems of "synthetic_arithmetic,200,3", or of a bare name, and what they are."""
    name, *numbers = source.split(",")
    number, seed = (*map(int, numbers), None, None)[:2]
    problems = load_problems(name, split, num_samples=number, seed=seed or 0)
    data = {"dataset": name, "split": split, "seed": seed or 0, "data_sha256": fingerprint(problems)}
    return data, problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=".", help="checkpoint whose base, tokenizer and prompts are used")
    parser.add_argument("--train", nargs="+", required=True, help="what to train on, read once")
    parser.add_argument("--data", nargs="+", default=["multiarith"], help="what to evaluate on")
    parser.add_argument("--learning_rate", type=float, default=3e-4)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    set_seed(options.seed)
    trained_on, problems = zip(*(load_source(source, "train") for source in options.train), strict=True)
    asked = [load_source(source, "eval") for source in options.data]
    model, tokenizer = load_model(options.model, dtype="float32")
    method, base = FineTunedCoT(model, tokenizer), model.language_model.requires_grad_(True)
    rows = method.training_rows(concatenate_datasets(problems))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.03,
            weight_decay=0.01,
            use_cpu=model.device.type == "cpu",
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            seed=options.seed,
        )
        trainer = Trainer(base, arguments, train_dataset=rows, data_collator=DataCollatorForSeq2Seq(tokenizer))
        trainer.train()
    base.eval()
    record = {
        "run": {"command": shlex.join(["python", "-m", "analysis.finetuned_cot", *sys.argv[1:]])},
        "train": {"problems": len(rows), "data": trained_on, "logged": trainer.state.log_history},
        "eval": [],
        "meta": {"base": model.config.base_model_name_or_path, **describe_machine(model)},
    }
    for data, questions in asked:
        figures, predictions = evaluate_method(method, questions, seed=data["seed"])
        record["eval"] += with_comparisons([{**data, **figures}], predictions, "cot")
        write_json(options.output, record)
    print(format_tables(record))


if __name__ == "__main__":
    main()
