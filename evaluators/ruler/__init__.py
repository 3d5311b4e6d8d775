"""RULER (arXiv 2404.06654), generated anew: 13 tasks, exact scoring, lengths by any tokenizer."""

from evaluators.ruler.prompt import Draft, Prompt
from evaluators.ruler.score import score
from evaluators.ruler.sources import SourceError, Sources
from evaluators.ruler.tasks import TASKS, LengthError, generate, task

__all__ = ["TASKS", "Draft", "LengthError", "Prompt", "SourceError", "Sources", "generate", "score", "task"]
