"""What a run of a sample of windows leaves in the store."""

import itertools

import numpy as np

from lit_pi.evaluations.perplexity.sampled.sampling import WindowSample
from lit_pi.evaluations.perplexity.token_scores import TokenLosses
from lit_pi.evaluations.perplexity.windows import WindowPlan


def only(losses: TokenLosses, plan: WindowPlan, sample: WindowSample) -> TokenLosses:
    """The store of a run of the sample."""
    nll = {}
    for series, values in losses.nll.items():
        nll[series] = values.copy()
        if series.scheme != plan.scheme:
            continue
        for document, length in enumerate(np.diff(losses.offsets).tolist()):
            bounds = plan.bounds(series.context_length, length) + losses.offsets[document]
            for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
                if not sample.includes(np.array([document]), np.array([number]))[0]:
                    nll[series][start:stop] = np.nan
    return TokenLosses(losses.offsets, nll)
