"""Corpora: where documents come from, one file a corpus."""

from lit_pi.data.corpora.corpus import Corpus, Document, Dropped, Split
from lit_pi.data.corpora.gov_report import GovReportCorpus
from lit_pi.data.corpora.hub_dataset import HubDataset
from lit_pi.data.corpora.pg19 import PG19Corpus
from lit_pi.data.corpora.pile import PileCorpus
from lit_pi.data.corpora.proof_pile import ProofPileCorpus
from lit_pi.data.corpora.redpajama import RedPajamaCorpus
from lit_pi.data.corpora.standard_library import StandardLibrary
from lit_pi.data.corpora.text_files import TextFiles

__all__ = [
    "Corpus",
    "Document",
    "Dropped",
    "GovReportCorpus",
    "HubDataset",
    "PG19Corpus",
    "PileCorpus",
    "ProofPileCorpus",
    "RedPajamaCorpus",
    "Split",
    "StandardLibrary",
    "TextFiles",
]
