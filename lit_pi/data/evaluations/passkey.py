"""Retrieval of a key hidden in a long text."""

from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from lit_pi.data.batches import IGNORE, ScoringBatch, Span
from lit_pi.data.build import open_store
from lit_pi.data.corpora import Corpus, Split
from lit_pi.data.evaluations.evaluation import Evaluation, ScoringBatches
from lit_pi.data.evaluations.passkey_prompts import Prompt, PromptBuilder
from lit_pi.errors import UserError
from lit_pi.evaluation.windows import share_out

Mode = Literal["paper", "grid", "random"]
SOME_KEY = "12345"
LONGEST_ANSWER = 8
"""Tokens that five digits and a space may have; and so far from both ends of the text every key can stand."""


class Sample(NamedTuple):
    """One question.

    Attributes:
        context_length: tokens of the prompt and its answer.
        cell: which distance or depth of the context length.
        trial: which question of the cell.
        distance: tokens that the key should stand from the prompt's end.
        depth: the same as a share of the text before the key: 0 at the start, 1 at the end.
    """

    context_length: int
    cell: int
    trial: int
    distance: int
    depth: float


class Passkey(Evaluation):
    """Asks for five random digits that stand somewhere in a long text (Chen et al. 2023, section 3.3).

    A question counts as answered when every token of the answer is the model's first choice, which one forward
    tells: greedy decoding would give the same. The same seed gives the same questions on any number of ranks.

    Args:
        context_lengths: tokens of a prompt and its answer.
        mode: `paper` varies the key's distance from the prompt's end in equal steps up to the context length; `grid`
            its depth from 0, the start of the text, to 1; `random` draws the depth.
        distances: how many distances, in mode `paper`.
        depths: how many depths, in mode `grid`.
        trials: questions for each distance or depth; in mode `random`, for each context length.
        filler: text to hide keys in; by default the paper's repeated sentence.
        filler_split: of that corpus.
        batch_size: prompts of one forward.
        seed: of keys, depths and places in the filler.
        every_n_steps: during `fit`, measure at validations whose step is a multiple of this; None for all.

    Raises:
        UserError: there is nothing to ask.
    """

    def __init__(
        self,
        context_lengths: Sequence[int] = (2048,),
        mode: Mode = "paper",
        distances: int = 32,
        depths: int = 11,
        trials: int = 10,
        filler: Corpus | None = None,
        filler_split: Split = "test",
        batch_size: int = 1,
        seed: int = 0,
        every_n_steps: int | None = None,
    ) -> None:
        super().__init__(every_n_steps)
        if not context_lengths or min(distances, depths, trials) < 1:
            raise UserError("a Passkey evaluation needs context_lengths, and distances, depths and trials from 1 on")
        self.context_lengths = tuple(sorted(set(context_lengths)))
        self.mode: Mode = mode
        self.cells = {"paper": distances, "grid": depths, "random": 1}[mode]
        self.trials = trials
        self.filler = filler
        self.filler_split: Split = filler_split
        self.batch_size = batch_size
        self.seed = seed
        self.builder: PromptBuilder | None = None

    def prepare(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Open the filler, and see that every prompt fits.

        Raises:
            UserError: a context length has no room for the template, or the filler is shorter.
        """
        if self.builder is None:
            text = None if self.filler is None else open_store(self.filler, self.filler_split, tokenizer).tokens
            self.builder = PromptBuilder(tokenizer, text)
            for sample in self.samples[:: self.cells * self.trials]:
                self.prompt(sample)

    @cached_property
    def samples(self) -> list[Sample]:
        """All questions, longest first."""
        return [
            self._sample(length, cell, trial)
            for length in reversed(self.context_lengths)
            for cell in range(self.cells)
            for trial in range(self.trials)
        ]

    def _sample(self, length: int, cell: int, trial: int) -> Sample:
        assert self.builder is not None
        nearest, farthest = self.builder.distances(length, SOME_KEY)
        nearest, farthest = nearest + LONGEST_ANSWER, max(farthest - LONGEST_ANSWER, nearest + LONGEST_ANSWER)
        if self.mode == "paper":
            distance = min(max(round((cell + 1) * length / self.cells), nearest), farthest)
        else:
            drawn = float(self._generator(length, cell, trial, "depth").random())
            depth = drawn if self.mode == "random" else cell / max(self.cells - 1, 1)
            distance = round(farthest - depth * (farthest - nearest))
        depth = (farthest - distance) / max(farthest - nearest, 1)
        return Sample(length, cell, trial, distance, depth)

    def prompt(self, sample: Sample) -> Prompt:
        """The prompt of a question and its answer."""
        assert self.builder is not None
        generator = self._generator(sample.context_length, sample.cell, sample.trial, "key")
        key = str(generator.integers(10_000, 100_000))
        return self.builder.build(sample.context_length, sample.distance, key, generator)

    def _generator(self, length: int, cell: int, trial: int, purpose: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, length, cell, trial, ord(purpose[0])])

    def batches(self, name: str, tokenizer: PreTrainedTokenizerFast, world_size: int) -> "PromptBatches":
        """All questions."""
        return PromptBatches(name, self, world_size)

    def describe(self) -> dict[str, Any]:
        """Lengths, mode and filler."""
        assert self.builder is not None
        tokenizer = self.builder.tokenizer
        return {
            "context_lengths": list(self.context_lengths),
            "mode": self.mode,
            "cells": self.cells,
            "trials": self.trials,
            "filler": None if self.filler is None else {"name": self.filler.name, "split": self.filler_split},
            "tokenizer": tokenizer.name_or_path,
            "seed": self.seed,
            "scored": "every answer token is the first choice, given the answer's tokens before it",
        }


class PromptBatches(ScoringBatches):
    """The questions of an evaluation as tensors.

    Args:
        name: of the evaluation.
        passkey: has the questions.
        world_size: ranks that share them.
    """

    def __init__(self, name: str, passkey: Passkey, world_size: int) -> None:
        self.name = name
        self.passkey = passkey
        self.planned: list[tuple[int, list[int]]] = []
        by_length = groupby(enumerate(passkey.samples), lambda item: item[1].context_length)
        for length, items in by_length:
            numbers = [number for number, _ in items]
            for rows in share_out(numbers, -1, passkey.batch_size, world_size):
                self.planned.append((length, rows))

    def __len__(self) -> int:
        return len(self.planned)

    def __getitem__(self, index: int) -> ScoringBatch:
        """Prompts and answers of one total length; a row that only fills up scores nothing."""
        length, numbers = self.planned[index]
        rows = torch.zeros(len(numbers), length, dtype=torch.long)
        targets = torch.full((len(numbers), length), IGNORE)
        for row, number in enumerate(numbers):
            if number >= 0:
                prompt = self.passkey.prompt(self.passkey.samples[number])
                rows[row] = torch.from_numpy(np.concatenate((prompt.tokens, prompt.answer)))
                targets[row, len(prompt.tokens) - 1 : -1] = torch.from_numpy(prompt.answer)
        scored = torch.arange(length - 1 - LONGEST_ANSWER, length - 1)
        return ScoringBatch(
            evaluation=self.name,
            input_ids=rows,
            lengths=torch.full((len(numbers),), length),
            scored=scored,
            targets=targets[:, scored],
            spans=(Span(length, 0, len(scored)),),
            documents=torch.tensor(numbers),
            begins=torch.zeros(len(numbers), dtype=torch.long),
            ranked=True,
        )
