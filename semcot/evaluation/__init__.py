"""Evaluation: methods, their answers judged strictly and leniently, their speed, the report."""

from semcot.answers import answer_kind, normalize_answer, parse_answer
from semcot.evaluation.evaluate import (
    check_questions,
    describe_machine,
    evaluate_method,
    load_model,
    measure_latencies,
    with_speedups,
)
from semcot.evaluation.methods import COMPARED, METHODS, Method, Output
from semcot.evaluation.report import format_table, prepare_output_dir, write_report

__all__ = [
    "COMPARED",
    "METHODS",
    "Method",
    "Output",
    "answer_kind",
    "check_questions",
    "describe_machine",
    "evaluate_method",
    "format_table",
    "load_model",
    "measure_latencies",
    "normalize_answer",
    "parse_answer",
    "prepare_output_dir",
    "with_speedups",
    "write_report",
]
