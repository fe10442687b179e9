"""Documents, token stores, training sequences and evaluations."""

from lit_pi.data.corpus import Corpus
from lit_pi.data.evaluation import Evaluation
from lit_pi.data.module import LongContextData
from lit_pi.data.perplexity import Perplexity
from lit_pi.data.standard_library import StandardLibrary
from lit_pi.data.text_files import TextFiles

__all__ = ["Corpus", "Evaluation", "LongContextData", "Perplexity", "StandardLibrary", "TextFiles"]
