"""
Is what the semantic loss asks for enough to answer? Thoughts are fitted to each problem's reasoning directly, with no
generator in between, until a reasoning encoder takes them for it; then the frozen base answers with them in place.
Beside them stand the checkpoint's own thoughts.
`python -m analysis.meaning_of_thoughts CHECKPOINT --encoder runs/NAME/reasoning_encoder --output results/NAME.json`
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from torch.nn import functional as F
from transformers import AutoTokenizer, BatchEncoding, PreTrainedTokenizerBase

from modeling_semcot import SemCoTForCausalLM
from semcot.answers import answer_kind, normalize_answer, parse_answer
from semcot.data import load_problems
from semcot.encoder import encode_texts, encode_thoughts, load_reasoning_encoder
from semcot.evaluation import describe_machine, weights_sha256
from semcot.files import write_json
from semcot.tokenization import render_prompt, tokenize_prompts


def prompts_of(tokenizer: PreTrainedTokenizerBase, problems: list[dict[str, str]]) -> BatchEncoding:
    """The prompts of problems as one batch, each with its placeholders and cue."""
    return tokenize_prompts(tokenizer, [render_prompt(tokenizer, problem["question"]) for problem in problems])


def answer_with(
    model: SemCoTForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    problems: list[dict[str, str]],
    thoughts: torch.FloatTensor,
    batch_size: int = 16,
) -> list[str]:
    """The base's greedy answers with these thoughts (problems, K, hidden) in place."""
    answers = []
    for start in range(0, len(problems), batch_size):
        rows = slice(start, start + batch_size)
        batch = prompts_of(tokenizer, problems[rows])
        written = model.generate(**batch, thoughts=thoughts[rows], max_new_tokens=16, do_sample=False)
        answers += tokenizer.batch_decode(written[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
    return answers


def fit_thoughts(
    encoder: SentenceTransformer, thoughts: torch.FloatTensor, meanings: torch.FloatTensor, steps: int, rate: float
) -> torch.FloatTensor:
    """Thoughts (batch, K, hidden), from `thoughts` on, whose embeddings point where `meanings` (batch, dim) do."""
    fitted = thoughts.detach().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([fitted], lr=rate * thoughts.std().item())
    for _ in range(steps):
        optimizer.zero_grad()
        (1 - F.cosine_similarity(encode_thoughts(encoder, fitted), meanings, dim=-1)).sum().backward()
        optimizer.step()
    return fitted.detach()


@torch.no_grad()
def judge(
    model: SemCoTForCausalLM,
    tokenizer,
    encoder: SentenceTransformer,
    problems: list[dict[str, str]],
    meanings: torch.FloatTensor,
    thoughts: torch.FloatTensor,
) -> dict[str, float]:
    """
    Of the thoughts (problems, K, hidden): their mean cosine with the reasonings, the share that is closer to its own
    reasoning than to any other, and the share of answers that are right with them.
    """
    cosines = F.normalize(encode_thoughts(encoder, thoughts), dim=-1) @ F.normalize(meanings, dim=-1).T
    answers = answer_with(model, tokenizer, problems, thoughts)
    golds = [problem["answer"] for problem in problems]
    right = [
        parse_answer(answer, answer_kind(gold)) == normalize_answer(gold)
        for answer, gold in zip(answers, golds, strict=True)
    ]
    own = (cosines.argmax(-1) == torch.arange(len(problems))).float().mean().item()
    figures = {"cosine": cosines.diag().mean().item(), "own reasoning found": own, "accuracy": sum(right) / len(right)}
    return {name: round(value, 4) for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--data", default="synthetic_arithmetic:1-2")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=0.1, help="of Adam, in standard deviations of the start")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    model = SemCoTForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model, trust_remote_code=True)
    encoder = load_reasoning_encoder(arguments.encoder, model.language_model)
    problems = load_problems(arguments.data, "eval", num_samples=arguments.limit, seed=arguments.seed).to_list()
    meanings = encode_texts(encoder, [problem["reasoning"] for problem in problems]).float()

    with torch.no_grad():
        own = model.think(**prompts_of(tokenizer, problems))
    # Embeddings of tokens drawn at random: where a base's input lies.
    table = model.get_input_embeddings().weight.detach()
    drawn = torch.randint(len(table), own.shape[:2], generator=torch.Generator().manual_seed(arguments.seed))
    rows = {
        "the checkpoint's": own,
        "tokens at random": table[drawn],
        "those, fitted to the reasoning": fit_thoughts(
            encoder, table[drawn], meanings, arguments.steps, arguments.rate
        ),
        "the checkpoint's, fitted to the reasoning": fit_thoughts(
            encoder, own, meanings, arguments.steps, arguments.rate
        ),
    }
    run = {name: value for name, value in vars(arguments).items() if name not in ("output", "model")}
    meta = {"model": arguments.model, "model_sha256": weights_sha256(arguments.model), **describe_machine(model)}
    command = shlex.join(["python", "-m", "analysis.meaning_of_thoughts", *sys.argv[1:]])
    record = {"run": {"command": command, **run}, "eval": [], "meta": meta}
    for name, thoughts in rows.items():
        figures = judge(model, tokenizer, encoder, problems, meanings, thoughts)
        record["eval"].append({"thoughts": name, "n": len(problems), **figures})
        print(json.dumps(record["eval"][-1]), flush=True)
    write_json(arguments.output, record)


if __name__ == "__main__":
    main()
