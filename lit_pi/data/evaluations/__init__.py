"""What is measured on documents, one file an evaluation."""

from lit_pi.data.evaluations.decode_consistency import DecodeConsistency
from lit_pi.data.evaluations.evaluation import Evaluation, ScoringBatches
from lit_pi.data.evaluations.multiple_choice import MultipleChoice
from lit_pi.data.evaluations.passkey import Passkey
from lit_pi.data.evaluations.perplexity import Perplexity
from lit_pi.data.evaluations.summarization import Summarization

__all__ = [
    "DecodeConsistency",
    "Evaluation",
    "MultipleChoice",
    "Passkey",
    "Perplexity",
    "ScoringBatches",
    "Summarization",
]
