"""
The methods to compare, by name. A new one is a new file with a subclass of `Method`, and its line here.
"""

from semcot.evaluation.methods.controls import OnePass, Random, Shuffled, Zeroed
from semcot.evaluation.methods.cot import ExplicitCoT
from semcot.evaluation.methods.direct import Direct
from semcot.evaluation.methods.method import Method, Output
from semcot.evaluation.methods.semcot import SemCoT

COMPARED = (SemCoT, Direct, ExplicitCoT)
METHODS: dict[str, type[Method]] = {method.name: method for method in (*COMPARED, Zeroed, Shuffled, Random, OnePass)}

__all__ = ["COMPARED", "METHODS", "Method", "Output", "SemCoT"]
