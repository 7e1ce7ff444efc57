"""Tasks for the language model evaluation harness, judged as `eval_semcot.py` judges, and the model `semcot` for it."""
