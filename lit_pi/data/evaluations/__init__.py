"""What is measured on documents, one file an evaluation."""

from lit_pi.data.evaluations.evaluation import Evaluation, ScoringBatches
from lit_pi.data.evaluations.multiple_choice import MultipleChoice
from lit_pi.data.evaluations.passkey import Passkey
from lit_pi.data.evaluations.perplexity import Perplexity

__all__ = ["Evaluation", "MultipleChoice", "Passkey", "Perplexity", "ScoringBatches"]
