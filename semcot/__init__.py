"""The SemCoT workbench: problems, training stages, methods, metrics and evaluation."""
