"""Tunes the queries' side of an encoder to votes; passage vectors never change.

The loss has two parts, both with cosines over TEMPERATURE as logits: the cross-entropy between the
chance of each candidate after the votes (soft targets, the noise of votes included) and a softmax
over a query's candidates; and the same of its likeliest passage among those of the other queries of
the batch ("in-batch negatives": Karpukhin et al., EMNLP 2020), weighted by that chance. Optimised by
AdamW (Loshchilov and Hutter, ICLR 2019), the rate rising over a tenth of the steps and falling to
zero. A few query groups are held out for validation: the weights that are best for those are taken,
and none where the untuned ones are best.

No other module trains with torch. It must not know where examples come from, nor whether the tuned
encoder goes live.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel import disk
from rag_flywheel.encode.tower import Tower
from rag_flywheel.errors import counted
from rag_flywheel.improve.examples import Examples, Floats, Ints
from rag_flywheel.improve.likelihood import after_votes
from rag_flywheel.improve.propagate import before_votes
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.records import Progress, Vectors

EPOCHS = 2
BATCH = 64
RATE = 3e-5
TEMPERATURE = 0.05
DECAY = 0.01
LEAST_QUERIES = 200  # with fewer, nothing is taught
MOST_QUERIES = 5_000  # the newest
_CHECKS = 4  # of the validation loss, spread over the steps
_PARTS = 4  # of a batch, by length: half the time where lengths differ
_SAVE_EVERY_S = 20.0
_LONGEST = 1.0  # norm of the gradient
_SUM = "sum"

log = logging.getLogger("rag_flywheel")


@dataclass(frozen=True)
class Lessons:
    """Past queries to tune by: their texts, candidates and votes.

    validation bool (n,): those held out for validation; chances (n, C): of each candidate after the
    votes; vectors: {lineages (m,)} -> float32 (m, dim), unit rows, of passages.
    """

    texts: Sequence[str]
    examples: Examples
    validation: npt.NDArray[np.bool_]
    chances: Floats
    vectors: Callable[[Ints], Vectors]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def too_few(self) -> str:
        """Why these are too few to tune by; empty when they are enough."""
        n = int((~self.validation).sum())
        if n < LEAST_QUERIES or not self.validation.any():
            return f"{n} of the {LEAST_QUERIES} past queries it takes"
        return ""

    @property
    def name(self) -> str:
        """A hash of the lessons, by which a checkpoint of theirs is recognised."""
        whole = hashlib.blake2b(digest_size=16)
        for text in self.texts:
            whole.update(text.encode("utf-8", "surrogatepass") + b"\0")
        for part in (self.examples.lineages, np.round(self.chances, 9), self.validation):
            whole.update(np.ascontiguousarray(part).tobytes())
        return whole.hexdigest()


@dataclass(frozen=True)
class TeachingResult:
    """The result of teaching: whether the validation loss fell, why, and the numbers."""

    better: bool
    why: str
    scores: dict[str, float]


def soft_targets(examples: Examples, parameters: Parameters) -> Floats:
    """The chance of each candidate after all votes, (n, C): a query whose answer may be none of them
    teaches less. Where several are right, they share a chance of 1."""
    after = after_votes(examples, before_votes(examples, parameters), parameters)
    found: Floats = after / np.maximum(after.sum(axis=1, keepdims=True), 1.0)
    return found


def teach(
    tower: Tower, lessons: Lessons, checkpoint: Path, progress: Progress | None = None
) -> TeachingResult:
    """Tune a tower in place, and leave it with the weights that have the least validation loss.

    lessons: not too few; checkpoint: the file of the progress; when it is of these lessons, tuning
    continues from there, with the same result. The same lessons give the same weights, on the same
    number of threads.
    """
    import torch

    own = np.flatnonzero(~lessons.validation)
    run = _Run(tower, lessons, own, np.flatnonzero(lessons.validation))
    run.resume(checkpoint)
    saved = time.monotonic()
    tower.model.eval()  # without dropout: two epochs do not overfit, and steps can be repeated
    with torch.enable_grad():
        while run.step < run.n_steps:
            if progress is not None:
                progress("tuning the query encoder", run.step, run.n_steps)
            run.advance()
            if time.monotonic() - saved > _SAVE_EVERY_S:
                run.save(checkpoint)
                saved = time.monotonic()
    if progress is not None:
        progress("tuning the query encoder", run.n_steps, run.n_steps)
    tower.take(run.best)
    gain = run.start - run.best_loss
    scores = {
        "n_taught": float(len(own)),
        "tuning_steps": float(run.best_step),
        "tuning_loss_before": round(run.start, 6),
        "tuning_loss": round(run.best_loss, 6),
    }
    if not gain > 0:  # nor where it is no number
        return TeachingResult(False, "queries kept apart are no better off", scores)
    return TeachingResult(
        True, f"taught by {counted(len(own), 'past query', 'past queries')}", scores
    )


class _Run:
    """One run of tuning: the optimiser, the step it is at, and the best weights so far."""

    def __init__(self, tower: Tower, lessons: Lessons, own: Ints, validation_rows: Ints) -> None:
        import torch

        self._tower, self._lessons = tower, lessons
        self._own, self._validation = own, validation_rows
        for parameter in tower.model.parameters():
            parameter.requires_grad_(False)
        for parameter in tower.taught.values():
            parameter.requires_grad_(True)
        self._names = sorted(tower.taught)
        self._optimiser = torch.optim.AdamW(
            [tower.taught[name] for name in self._names], lr=RATE, weight_decay=DECAY
        )
        self._half = _half_precision()
        self._batches = -(-len(own) // BATCH)
        self.n_steps = EPOCHS * self._batches
        self.step, self.best_step = 0, 0
        self.best = self._tower.weights
        self.start = self.best_loss = self._validation_loss()

    def advance(self) -> None:
        """Take one step, and compute the validation loss when that is due."""
        import torch

        epoch, batch = divmod(self.step, self._batches)
        order = np.random.default_rng([epoch, 1]).permutation(self._own)
        rows = np.sort(order[batch * BATCH : (batch + 1) * BATCH])
        for group in self._optimiser.param_groups:
            group["lr"] = RATE * _ramp(self.step, self.n_steps)
        self._optimiser.zero_grad()
        loss = self._loss(rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self._tower.taught.values()), _LONGEST)
        self._optimiser.step()
        self.step += 1
        if self.step in {round(self.n_steps * i / _CHECKS) for i in range(1, _CHECKS + 1)}:
            found = self._validation_loss()
            if found < self.best_loss:
                self.best, self.best_step, self.best_loss = self._tower.weights, self.step, found

    def _loss(self, rows: Ints) -> Any:
        import torch

        lessons = self._lessons
        examples = lessons.examples
        present = torch.from_numpy(examples.present[rows])
        lineages = np.where(examples.present[rows], examples.lineages[rows], -1)
        flat, places = np.unique(lineages, return_inverse=True)
        known = flat[flat >= 0]
        passages = torch.zeros((len(flat), lessons.examples.vectors.shape[1]))
        passages[len(flat) - len(known) :] = torch.from_numpy(lessons.vectors(known))
        queries = self._vectors([lessons.texts[i] for i in rows.tolist()])
        every = queries @ passages.T / TEMPERATURE
        chances = torch.from_numpy(lessons.chances[rows]).float()
        own = every.gather(1, torch.from_numpy(places.reshape(lineages.shape)))
        shares = torch.log_softmax(own.masked_fill(~present, -1e9), 1)
        listwise = -(chances * shares.clamp(min=-60.0)).sum(1).mean()
        at = torch.from_numpy(lessons.chances[rows].argmax(axis=1))
        best = torch.from_numpy(places.reshape(lineages.shape)).gather(1, at[:, None])[:, 0]
        among = every[:, best]
        same = best[:, None] == best[None, :]
        right = torch.logsumexp(among.masked_fill(~same, -1e9), 1) - torch.logsumexp(among, 1)
        return listwise - (chances.max(1).values * right).mean()

    def _vectors(self, texts: Sequence[str]) -> Any:
        """The vectors of a batch, (n, dim); texts of similar length are encoded together, so that
        there is little padding."""
        import torch

        order = np.argsort([len(text) for text in texts], kind="stable")
        with self._half():
            found = [
                self._tower.vectors([texts[i] for i in part.tolist()])
                for part in np.array_split(order, _PARTS)
                if len(part)
            ]
        return torch.cat(found)[torch.from_numpy(np.argsort(order))]

    def _validation_loss(self) -> float:
        import torch

        losses, sizes = [], []
        with torch.no_grad():
            for start in range(0, len(self._validation), BATCH):
                rows = self._validation[start : start + BATCH]
                losses.append(float(self._loss(rows)))
                sizes.append(len(rows))
        return float(np.average(losses, weights=sizes))

    def save(self, path: Path) -> None:
        """Save the progress; a full disk only costs time later."""
        from safetensors.numpy import save

        tensors = {f"now.{n}": t for n, t in self._tower.weights.items()}
        tensors |= {f"best.{n}": t for n, t in self.best.items()}
        for name, parameter in zip(
            self._names, self._optimiser.param_groups[0]["params"], strict=True
        ):
            for kind, tensor in self._optimiser.state[parameter].items():
                tensors[f"{kind}.{name}"] = tensor.numpy().copy()
        words = {"of": self._of(), "step": str(self.step), "best_step": str(self.best_step)}
        words["best_loss"] = self.best_loss.hex()
        words[_SUM] = _sum_of(words, tensors)
        try:
            disk.write_file(
                path.parent.parent, f"{path.parent.name}/{path.name}", save(tensors, words)
            )
        except OSError as error:
            log.warning("tuning: how far it is cannot be kept (%s); going on", error)

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint, when it is of the same lessons."""
        from safetensors import SafetensorError, safe_open

        if not path.exists():
            return
        try:
            with safe_open(str(path), framework="np") as file:
                header = file.metadata() or {}
                if header.get("of") != self._of():
                    return
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if header.pop(_SUM, None) != _sum_of(header, tensors):
                raise ValueError("its checksum differs")
        except (OSError, ValueError, TypeError, SafetensorError) as error:
            log.warning("tuning: %s cannot be read (%s); starting anew", path.name, error)
            return
        self._take_up(header, tensors)
        log.info("tuning: going on from step %d of %d", self.step, self.n_steps)

    def _take_up(self, header: dict[str, str], tensors: dict[str, Any]) -> None:
        import torch

        def part(kind: str) -> dict[str, Any]:
            return {n: tensors[f"{kind}.{n}"] for n in self._names}

        self._tower.take(part("now"))
        moments = {kind: part(kind) for kind in ("step", "exp_avg", "exp_avg_sq")}
        for name, parameter in zip(
            self._names, self._optimiser.param_groups[0]["params"], strict=True
        ):
            self._optimiser.state[parameter] = {
                kind: torch.from_numpy(of[name]) for kind, of in moments.items()
            }
        self.best, self.best_loss = part("best"), float.fromhex(header["best_loss"])
        self.step, self.best_step = int(header["step"]), int(header["best_step"])

    def _of(self) -> str:
        settings = (EPOCHS, BATCH, _PARTS, RATE, TEMPERATURE, DECAY, _CHECKS)
        return f"{self._tower.base} {self._lessons.name} {settings}"


def _sum_of(header: Mapping[str, str], tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    """The checksum of a checkpoint, for safetensors has none."""
    whole = hashlib.blake2b(repr(sorted(header.items())).encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        whole.update(f"{name} {tensor.dtype} {tensor.shape} ".encode() + tensor.tobytes())
    return whole.hexdigest()


def _ramp(step: int, n_steps: int) -> float:
    """The share of the rate at a step: up over a tenth of them, then down to nothing."""
    warm = max(1, n_steps // 10)
    return min((step + 1) / warm, (n_steps - step) / max(1, n_steps - warm))


def _half_precision() -> Callable[[], AbstractContextManager[Any]]:
    """bfloat16 arithmetic where the processor has it: half the time."""
    import torch

    if torch.cpu.get_capabilities().get("avx512_bf16", False):
        return lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    return nullcontext
