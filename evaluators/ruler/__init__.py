"""RULER (arXiv 2404.06654), generated anew: 13 tasks, exact scoring, lengths by any tokenizer."""

from evaluators.ruler.dataset import dataset
from evaluators.ruler.hub import SourceError
from evaluators.ruler.prompt import Draft, Prompt
from evaluators.ruler.score import score
from evaluators.ruler.sources import Sources
from evaluators.ruler.tasks import TASKS, LengthError, generate, task

__all__ = [
    "TASKS",
    "Draft",
    "LengthError",
    "Prompt",
    "SourceError",
    "Sources",
    "dataset",
    "generate",
    "score",
    "task",
]
