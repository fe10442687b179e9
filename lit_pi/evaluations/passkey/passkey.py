"""Retrieval of a key hidden in a long text."""

import re
from collections.abc import Mapping, Sequence
from itertools import groupby, product
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from lit_pi.batches import IGNORE, GenerationBatch, ScoringBatch, Span
from lit_pi.data.build import open_store
from lit_pi.data.corpora.corpus import Corpus, Split
from lit_pi.data.generation import GenerationBatches, PromptSample, continuation, decoding_of
from lit_pi.data.ranks import share_out
from lit_pi.data.store import TokenStore
from lit_pi.data.tokenizer import tokenizer_fingerprint
from lit_pi.errors import UserError
from lit_pi.evaluations.evaluation import Evaluation, Found, Results, ScoringBatches
from lit_pi.evaluations.figures import Picture
from lit_pi.evaluations.passkey.figures import passkey_figures
from lit_pi.evaluations.passkey.paired import KIND
from lit_pi.evaluations.passkey.prompts import ANSWER, FILLER, NEEDLE, QUESTION, TASK, Prompt, PromptTemplate
from lit_pi.evaluations.passkey.scores import PasskeySample, PasskeyScores, WrittenPasskeys
from lit_pi.evaluations.passkey.summary import summarise
from lit_pi.evaluations.passkey.tables import passkey_differences, passkey_tables
from lit_pi.evaluations.tables import Table
from lit_pi.ranges import BatchSize, Count, Seed, Tokens, in_range

PasskeyMode = Literal["paper", "grid", "random"]
Score = Literal["teacher_forced", "generate"]
NUMBER = re.compile(r"[0-9]+")
CORRECT: dict[Score, str] = {
    "teacher_forced": "every answer token has the largest logit, given the answer's tokens before it",
    "generate": "the first number in what is decoded greedily is the key",
}


class PasskeyRetrieval(Evaluation):
    """Asks for five random digits that stand somewhere in a long text (Chen et al. 2023, section 3.3).

    Every prompt, with `<bos>` and its answer, has exactly as many tokens as its context length. It counts as answered
    when each token of the answer is the model's first choice after those before it, which one forward tells: greedy
    decoding would begin with the answer. Or the model writes as many tokens greedily, and the first number in them is
    to be the key: for models that put other words before it. A prompt depends on the seed, its context length, its
    distance or depth and its trial alone.

    Args:
        context_lengths: tokens of `<bos>`, prompt and answer; all are measured in one run, the longest first.
        mode: `paper` puts the key at distances from the prompt's end in equal steps up to the context length; `grid`
            at depths from 0, the very start of the filler, to 1, its end; `random` draws the depth.
        distances: how many, in mode `paper`. The first and last ones are as near and as far as the template allows.
        depths: how many, in mode `grid`.
        trials: prompts for each distance or depth; in mode `random`, for each context length.
        score: `teacher_forced` asks in one forward; `generate` writes an answer token by token.
        max_new_tokens: tokens of a written answer, at most. As many as an answer has by default; more of them make the
            context that much longer.
        filler: text to hide keys in, a stretch drawn at random for each prompt; by default the repeated sentence of
            Mohtashami and Jaggi 2023.
        filler_split: split of that corpus.
        batch_size: prompts of one forward.
        seed: chooses keys, drawn depths and stretches of filler.
        every_n_steps: during `fit`, measure at steps that are multiples of this; None for every validation.

    Raises:
        UserError: there is nothing to ask, or an option is below its least value.
    """

    kind = KIND
    folder = "passkeys"

    @in_range
    def __init__(
        self,
        context_lengths: Sequence[Tokens] = (2048,),
        mode: PasskeyMode = "paper",
        distances: Count = 32,
        depths: Count = 11,
        trials: Count = 10,
        score: Score = "teacher_forced",
        max_new_tokens: Tokens | None = None,
        filler: Corpus | None = None,
        filler_split: Split = "test",
        batch_size: BatchSize = 1,
        seed: Seed = 0,
        every_n_steps: Count | None = None,
    ) -> None:
        super().__init__(every_n_steps)
        if not context_lengths:
            raise UserError("context_lengths of the PasskeyRetrieval evaluation are empty: give at least one")
        self.context_lengths = tuple(sorted(set(context_lengths), reverse=True))
        self.mode: PasskeyMode = mode
        self.cells = {"paper": distances, "grid": depths, "random": 1}[mode]
        self.trials = trials
        self.score: Score = score
        self.max_new_tokens = max_new_tokens
        self.filler = filler
        self.filler_split: Split = filler_split
        self.batch_size = batch_size
        self.seed = seed
        self.samples: list[PasskeySample] = []
        self.answer_tokens = 0
        self._template: PromptTemplate | None = None
        self._store: TokenStore | None = None
        self._sentences = np.empty(0, np.int64)
        self._tokenizer: PreTrainedTokenizerFast | None = None

    def prepare(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Open the filler, and see that every prompt fits.

        Raises:
            UserError: a context length has no room for the template, there is too little filler, or the tokenizer
                cannot write digits.
        """
        if self._template is not None:
            return
        template = PromptTemplate(tokenizer)
        places = list(product(self.context_lengths, range(self.cells), range(self.trials)))
        bare = {place: template.of_key(self._key(*place)[0]) for place in places}
        longest, shortest = max(len(prompt.tokens) for prompt in bare.values()), self.context_lengths[-1]
        if shortest < longest:
            raise UserError(
                f"a context length of {shortest} tokens is too short for a passkey: its prompt and answer take "
                f"{longest} tokens of {tokenizer.name_or_path} without any filler; set context_lengths to {longest} or "
                "more"
            )
        room = max(place[0] - len(prompt.tokens) for place, prompt in bare.items())
        if self.filler is None:
            self._sentences = template.filler(room)
        else:
            self._store = open_store(self.filler, self.filler_split, tokenizer)
            if self._store.num_tokens < room:
                raise UserError(
                    f"the passkey filler {self.filler.name}, {self.filler_split}, has {self._store.num_tokens:,} "
                    f"tokens and the longest prompt needs {room:,}: bring more text or lower context_lengths"
                )
        self._template = template
        self._tokenizer = tokenizer
        self.answer_tokens = max(len(prompt.answer) for prompt in bare.values())
        self.samples = [self._sample(*place) for place in places]

    def _key(self, context_length: int, cell: int, trial: int) -> tuple[int, np.random.Generator]:
        """The key of a prompt, and what draws the rest of it."""
        generator = np.random.default_rng([self.seed, context_length, cell, trial])
        return int(generator.integers(10_000, 100_000)), generator

    def prompt(self, context_length: int, cell: int, trial: int) -> Prompt:
        """A prompt and its answer, by what decides it."""
        assert self._template is not None
        key, generator = self._key(context_length, cell, trial)
        bare = self._template.of_key(key)
        room = context_length - len(bare.tokens)
        if self.mode == "paper":
            after = min(max(self._nominal(context_length, cell) - bare.distance, 0), room)
        elif self.mode == "grid":
            after = room - round(room * cell / max(self.cells - 1, 1))
        else:
            after = int(generator.integers(room + 1))
        before = room - after
        if self._store is None:
            return bare._replace(before=self._sentences[:before], after=self._sentences[:after])
        start = int(generator.integers(self._store.num_tokens - room + 1))
        stretch = self._store.tokens[start : start + room].astype(np.int64)
        return bare._replace(before=stretch[:before], after=stretch[before:])

    def _nominal(self, context_length: int, cell: int) -> int:
        return round((cell + 1) * context_length / self.cells)

    def _sample(self, context_length: int, cell: int, trial: int) -> PasskeySample:
        prompt = self.prompt(context_length, cell, trial)
        nominal = self._nominal(context_length, cell) if self.mode == "paper" else prompt.distance
        return PasskeySample(context_length, cell, trial, nominal, prompt.distance, prompt.depth)

    def batches(
        self, name: str, tokenizer: PreTrainedTokenizerFast, world_size: int
    ) -> "PromptBatches | GenerationBatches":
        """All prompts, with their answers or to be answered."""
        if self.score == "teacher_forced":
            return PromptBatches(name, self, world_size)
        new = self.max_new_tokens or self.answer_tokens
        decoding = decoding_of(tokenizer, new, 0.0, 1.0, tokenizer.eos_token_id is not None)
        return GenerationBatches(
            name, [self._question(*s[:3]) for s in self.samples], decoding, self.batch_size, world_size
        )

    def _question(self, context_length: int, cell: int, trial: int) -> PromptSample:
        prompt = self.prompt(context_length, cell, trial)
        question = prompt.tokens[: -len(prompt.answer)]
        return PromptSample(
            question, context_length if self.max_new_tokens is None else len(question) + self.max_new_tokens
        )

    def metric(self) -> PasskeyScores:
        """Return sums for each prompt."""
        return (PasskeyScores if self.score == "teacher_forced" else WrittenPasskeys)(self.samples)

    def add(self, metric: PasskeyScores, outputs: dict[str, Any], batch: ScoringBatch | GenerationBatch) -> None:
        """Add a batch of prompts."""
        if isinstance(batch, ScoringBatch):
            (token_nll,), (token_rank,) = outputs["token_nll"], outputs["token_rank"]
            metric.update(batch.documents, token_nll, token_rank, batch.targets != IGNORE)
            return
        assert isinstance(metric, WrittenPasskeys)
        real = batch.documents >= 0
        indices, answers = batch.documents[real], outputs["token_ids"][real].tolist()
        lengths = outputs["lengths"][real].tolist()
        said = [answer[:length] for answer, length in zip(answers, lengths, strict=True)]
        answered = self.answered(indices.tolist(), said)
        metric.update(indices, torch.tensor(answered, dtype=torch.bool, device=indices.device))

    def results(self, metric: PasskeyScores, model: Mapping[str, Any]) -> Results:
        """Return accuracies by distance, depth and context length, and every prompt's outcome."""
        return summarise(metric.compute(), None if self.mode == "random" else self.cells)

    @classmethod
    def tables(cls, found: Found) -> list[Table]:
        """Return accuracy and k_max by context length.

        k_max is the largest distance up to which at least 20 % (50 %, 90 %) of the prompts of every distance are
        answered. There is none where distances are drawn, nor for context lengths of which cells were left out.
        """
        return passkey_tables(found)

    @classmethod
    def figures(cls, found: Found) -> dict[str, Picture]:
        """Return accuracy against distance, or maps of depth and context length."""
        return passkey_figures(found)

    @classmethod
    def differences(cls, found: Found) -> list[Table]:
        """Return what runs find that the first one does not, on the same prompts."""
        return passkey_differences(found)

    def answered(self, indices: Sequence[int], answers: Sequence[Sequence[int]]) -> list[bool]:
        """Whether the first number that the model wrote is the key.

        Args:
            indices: places among the samples.
            answers: the tokens written after each prompt.
        """
        assert self._tokenizer is not None
        found = []
        for index, answer in zip(indices, answers, strict=True):
            place = self.samples[index][:3]
            number = NUMBER.search(continuation(self._tokenizer, self._question(*place).tokens.tolist(), answer))
            found.append(number is not None and number[0] == str(self._key(*place)[0]))
        return found

    def describe(self) -> dict[str, Any]:
        """Template, tokenizer, places of the keys, filler, and what counts as found."""
        assert self._tokenizer is not None
        return {
            "context_lengths": list(self.context_lengths),
            "mode": self.mode,
            "cells": self.cells,
            "trials": self.trials,
            "samples": len(self.samples),
            "seed": self.seed,
            "template": f"{TASK}FILLER{NEEDLE}FILLER{QUESTION}{ANSWER}",
            "filler": FILLER if self._store is None else self._store.manifest["corpus"],
            "tokenizer": {
                "name": self._tokenizer.name_or_path,
                "fingerprint": tokenizer_fingerprint(self._tokenizer),
            },
            "context_length_is": "tokens of <bos>, prompt and answer",
            "distance_is": "tokens from the key's first one through the prompt's last",
            "depth_is": "share of the filler's tokens before the key",
            "score": self.score,
            "max_new_tokens": self.max_new_tokens,
            "correct_is": CORRECT[self.score],
        }


class PromptBatches(ScoringBatches):
    """The prompts of an evaluation as tensors, each built when it is asked for.

    Args:
        name: name of the evaluation.
        passkey: builds the prompts.
        world_size: ranks that share them.
    """

    def __init__(self, name: str, passkey: PasskeyRetrieval, world_size: int) -> None:
        self.name = name
        self.passkey = passkey
        self.planned = [
            (length, rows)
            for length, indices in groupby(
                range(len(passkey.samples)), lambda index: passkey.samples[index].context_length
            )
            for rows in share_out(list(indices), -1, passkey.batch_size, world_size)
        ]

    def __len__(self) -> int:
        return len(self.planned)

    def __getitem__(self, index: int) -> ScoringBatch:
        """Prompts and answers of one total length; a row that only fills up scores nothing."""
        (length, indices), answers = self.planned[index], self.passkey.answer_tokens
        rows = torch.zeros(len(indices), length, dtype=torch.long)
        targets = torch.full((len(indices), answers), IGNORE)
        for row, target, number in zip(rows, targets, indices, strict=True):
            if number >= 0:
                prompt = self.passkey.prompt(*self.passkey.samples[number][:3])
                row[:] = torch.from_numpy(prompt.tokens)
                target[answers - len(prompt.answer) :] = torch.from_numpy(prompt.answer)
        return ScoringBatch(
            evaluation=self.name,
            input_ids=rows,
            lengths=torch.full((len(indices),), length),
            scored=torch.arange(length - 1 - answers, length - 1),
            targets=targets,
            spans=(Span(length, 0, answers),),
            documents=torch.tensor(indices),
            begins=torch.zeros(len(indices), dtype=torch.long),
            ranked=True,
        )
