"""LightningDataModules of the field's corpora: to train on, and to measure as Chen et al. 2023 do.

Each names a corpus and an evaluation for `LongContextData`, which takes any mixture of them in YAML.
"""

from collections.abc import Sequence
from typing import Any

from lit_pi.data import corpora
from lit_pi.datamodules.long_context import LongContextData
from lit_pi.evaluations import PasskeyRetrieval, Perplexity
from lit_pi.evaluations.passkey.passkey import PasskeyMode

PAPER_LENGTHS = (2048, 4096, 8192, 16384, 32768)
"""Context lengths of tables 1 and 2, in tokens."""
PAPER_DOCUMENTS = 128
"""Documents drawn from proof-pile (section 3.2)."""


class PG19(LongContextData):
    """Trains on PG-19, and measures perplexity on all books of its test split (section 3.2, table 1).

    Args:
        corpus: the books; by default those on the hub.
        context_lengths: windows that are measured (tokens).
        stride: tokens from one window to the next.
        options: any other option of `LongContextData`.
    """

    def __init__(
        self,
        corpus: corpora.PG19Corpus | None = None,
        context_lengths: Sequence[int] = PAPER_LENGTHS,
        stride: int = 256,
        **options: Any,
    ) -> None:
        corpus = corpus or corpora.PG19Corpus()
        super().__init__(corpus, {"pg19": Perplexity(corpus, "test", context_lengths, stride)}, **options)


class ProofPile(LongContextData):
    """Trains on proof-pile, and measures perplexity on long documents of its test split (section 3.2, table 2).

    They are drawn at random from those that fill the longest window, and cut to it.

    Args:
        corpus: the documents; by default those on the hub.
        context_lengths: windows that are measured (tokens).
        stride: tokens from one window to the next.
        max_documents: how many documents are drawn.
        options: any other option of `LongContextData`.
    """

    def __init__(
        self,
        corpus: corpora.ProofPileCorpus | None = None,
        context_lengths: Sequence[int] = PAPER_LENGTHS,
        stride: int = 256,
        max_documents: int = PAPER_DOCUMENTS,
        **options: Any,
    ) -> None:
        corpus = corpus or corpora.ProofPileCorpus()
        test = _long_documents(corpus, context_lengths, stride, max_documents)
        super().__init__(corpus, {"proof_pile": test}, **options)


class Pile(LongContextData):
    """Trains on the Pile, as section 3.1 does, and measures perplexity on long documents of its test split.

    They are drawn at random from those that fill the longest window, and cut to it.

    Args:
        corpus: the documents; by default those on the hub.
        context_lengths: windows that are measured (tokens).
        stride: tokens from one window to the next.
        max_documents: how many documents are drawn.
        options: any other option of `LongContextData`.
    """

    def __init__(
        self,
        corpus: corpora.PileCorpus | None = None,
        context_lengths: Sequence[int] = PAPER_LENGTHS,
        stride: int = 256,
        max_documents: int = PAPER_DOCUMENTS,
        **options: Any,
    ) -> None:
        corpus = corpus or corpora.PileCorpus()
        super().__init__(corpus, {"pile": _long_documents(corpus, context_lengths, stride, max_documents)}, **options)


class RedPajama(LongContextData):
    """Trains on RedPajama, as section 3.4 does, and measures perplexity on long documents held out.

    They are drawn at random from those that fill the longest window, and cut to it.

    Args:
        corpus: the documents; by default those of the sample on the hub.
        context_lengths: windows that are measured (tokens).
        stride: tokens from one window to the next.
        max_documents: how many documents are drawn.
        options: any other option of `LongContextData`.
    """

    def __init__(
        self,
        corpus: corpora.RedPajamaCorpus | None = None,
        context_lengths: Sequence[int] = PAPER_LENGTHS,
        stride: int = 256,
        max_documents: int = PAPER_DOCUMENTS,
        **options: Any,
    ) -> None:
        corpus = corpus or corpora.RedPajamaCorpus()
        test = _long_documents(corpus, context_lengths, stride, max_documents)
        super().__init__(corpus, {"redpajama": test}, **options)


class GovReport(LongContextData):
    """Trains on the summaries of GovReport given their reports (section 3.5), and measures perplexity of reports.

    Args:
        corpus: reports and summaries; by default those on the hub, of which summaries are learnt, at most 1,000
            tokens of each after at most 15,000 of its report.
        context_lengths: windows of reports that are measured (tokens).
        stride: tokens from one window to the next.
        options: any other option of `LongContextData`.
    """

    def __init__(
        self,
        corpus: corpora.GovReportCorpus | None = None,
        context_lengths: Sequence[int] = (2048, 4096, 8192),
        stride: int = 256,
        **options: Any,
    ) -> None:
        corpus = corpus or corpora.GovReportCorpus(learn="summary", max_report_tokens=15_000, max_summary_tokens=1_000)
        reports = corpus.of_reports()
        super().__init__(corpus, {"gov_report": Perplexity(reports, "test", context_lengths, stride)}, **options)


class Passkey(LongContextData):
    """Asks for a key hidden in a long text (section 3.3, table 4).

    Args:
        context_lengths: tokens of a prompt and its answer.
        mode: `paper` varies the key's distance from the end, `grid` its depth, `random` draws the depth.
        trials: prompts for each distance or depth.
        options: any other option of `LongContextData`.
    """

    def __init__(
        self,
        context_lengths: Sequence[int] = (32768,),
        mode: PasskeyMode = "paper",
        trials: int = 10,
        **options: Any,
    ) -> None:
        evaluation = PasskeyRetrieval(context_lengths, mode, trials=trials)
        super().__init__(None, {"passkey": evaluation}, **options)


def _long_documents(
    corpus: corpora.Corpus, context_lengths: Sequence[int], stride: int, max_documents: int
) -> Perplexity:
    """Documents that fill the longest window, drawn at random and cut to it."""
    longest = max(context_lengths)
    return Perplexity(
        corpus,
        "test",
        context_lengths,
        stride,
        min_tokens=longest,
        max_documents=max_documents,
        max_tokens=longest,
    )
