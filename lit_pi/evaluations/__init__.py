"""Evaluations of models, one folder each."""

from lit_pi.evaluations.choices.multiple_choice import MultipleChoice
from lit_pi.evaluations.decoding.decode_consistency import DecodeConsistency
from lit_pi.evaluations.evaluation import Evaluation, Probe, Results, ScoringBatches
from lit_pi.evaluations.passkey.passkey import PasskeyRetrieval
from lit_pi.evaluations.perplexity.perplexity import Perplexity
from lit_pi.evaluations.summaries.summarization import Summarization

__all__ = [
    "DecodeConsistency",
    "Evaluation",
    "MultipleChoice",
    "PasskeyRetrieval",
    "Perplexity",
    "Probe",
    "Results",
    "ScoringBatches",
    "Summarization",
]
