"""
The methods to compare, by name. A new one is a new file with a subclass of `Method`, and its line here.
"""

from semcot.evaluation.methods.cot import ExplicitCoT
from semcot.evaluation.methods.direct import Direct
from semcot.evaluation.methods.method import Method, Output, prompt_without_thoughts
from semcot.evaluation.methods.random import Random
from semcot.evaluation.methods.semcot import SemCoT
from semcot.evaluation.methods.shuffled import Shuffled
from semcot.evaluation.methods.zeroed import Zeroed

COMPARED = (SemCoT, Direct, ExplicitCoT)
METHODS: dict[str, type[Method]] = {method.name: method for method in (*COMPARED, Zeroed, Shuffled, Random)}

__all__ = ["COMPARED", "METHODS", "ExplicitCoT", "Method", "Output", "SemCoT", "prompt_without_thoughts"]
