"""Evaluation: methods, their answers judged strictly and leniently, their speed, the report."""

from semcot.evaluation.judging import with_comparisons
from semcot.evaluation.loading import load_model, weights_sha256
from semcot.evaluation.measure import (
    check_questions,
    describe_machine,
    evaluate_method,
    measure_latencies,
)
from semcot.evaluation.methods import COMPARED, METHODS, Method, Output
from semcot.evaluation.options import EvalOptions
from semcot.evaluation.report import prepare_output_dir, write_report
from semcot.evaluation.statistics import mean_with_interval, wilson_interval
from semcot.evaluation.tables import format_table, format_tables

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
    "format_tables",
    "load_model",
    "mean_with_interval",
    "measure_latencies",
    "prepare_output_dir",
    "weights_sha256",
    "wilson_interval",
    "with_comparisons",
    "write_report",
]
