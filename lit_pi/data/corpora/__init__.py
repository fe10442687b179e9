"""Where documents come from, one file a corpus."""

from lit_pi.data.corpora.corpus import Corpus, Document, Dropped, Split
from lit_pi.data.corpora.gov_report import GovReport
from lit_pi.data.corpora.pg19 import PG19
from lit_pi.data.corpora.pile import Pile
from lit_pi.data.corpora.proof_pile import ProofPile
from lit_pi.data.corpora.redpajama import RedPajama
from lit_pi.data.corpora.standard_library import StandardLibrary
from lit_pi.data.corpora.text_files import TextFiles

__all__ = [
    "PG19",
    "Corpus",
    "Document",
    "Dropped",
    "GovReport",
    "Pile",
    "ProofPile",
    "RedPajama",
    "Split",
    "StandardLibrary",
    "TextFiles",
]
