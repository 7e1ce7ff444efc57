"""Evaluation: methods, their answers judged strictly and leniently, their speed, the report."""

from semcot.evaluation.evaluate import EvalOptions
from semcot.evaluation.loading import load_model, weights_sha256
from semcot.evaluation.measure import (
    check_questions,
    describe_machine,
    evaluate_method,
    measure_latencies,
    wilson_interval,
    with_speedups,
)
from semcot.evaluation.methods import COMPARED, METHODS, Method, Output
from semcot.evaluation.report import format_table, prepare_output_dir, write_report

__all__ = [
    "COMPARED",
    "METHODS",
    "EvalOptions",
    "Method",
    "Output",
    "check_questions",
    "describe_machine",
    "evaluate_method",
    "format_table",
    "load_model",
    "measure_latencies",
    "prepare_output_dir",
    "weights_sha256",
    "wilson_interval",
    "with_speedups",
    "write_report",
]
