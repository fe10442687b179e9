"""Where documents come from, one file a corpus."""

from lit_pi.data.corpora.corpus import Corpus, Document, Dropped, Split
from lit_pi.data.corpora.standard_library import StandardLibrary
from lit_pi.data.corpora.text_files import TextFiles

__all__ = ["Corpus", "Document", "Dropped", "Split", "StandardLibrary", "TextFiles"]
