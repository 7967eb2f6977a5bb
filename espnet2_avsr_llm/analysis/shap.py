"""Shapley values of the audio and video tokens of an utterance for each token of its hypothesis (Dr. SHAP-AV, arXiv 2603.12046).

Players k = 1 … p are the tokens of the streams in the LLM's input; BOS, delimiters and prompt always stay. For a hypothesis y_1 … y_T
decoded once from the full input, f_t(S) is a score of y_t under teacher forcing with the players of S alone, and

    φ_{k,t} = Σ_{S ⊆ P∖k} |S|! (p − |S| − 1)! / p! · [f_t(S ∪ k) − f_t(S)]         Σ_k φ_{k,t} = f_t(P) − f_t(∅)

A player that is not in S becomes the zero vector (the paper's), the mean token of its stream in the utterance, or leaves the sequence
for good. Zero is no token that the LLM has ever read; the other two are here because of that. Scores: ``log_prob``, the released
programs' ``logit``, and ``released``, which is their logit one position late (how likely y_t is once y_t has been read; the papers'
numbers of LLM models come from it). The head and the scores are in float32: a bfloat16 logit of 16 to 32 lies on a grid of 0.125, about
what one token changes.

The estimators are those of the `shap` package over batches of coalitions; a coalition met again is not run again, so that f(P) and
f(∅) are the same numbers everywhere and the efficiency axiom holds exactly in permutation walks.

Derived for Llama-3.1-8B in bfloat16 and 32 coalitions of N = 683 tokens (25 s at rates (4, 2) and a text of 32): 16.1 GB of weights and
1.3 GB of encoders (Whisper medium, AV-HuBERT Large); in the layers 0.9 GB of states (32 × N × 4096, three in bfloat16 and one in
float32) and 1.9 GB in the MLP (three of 32 × N × 14336); at the head its weights in float32, 2.1 GB, and 0.5 GB of logits (32 × 33 ×
128256). Peak near 21 GB; ``batch_size`` lowers it.

Shapes: `p` players, `T` hypothesis tokens with EOS, `N` LLM tokens, `D` LLM width, `V` vocabulary, `n` coalitions.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from espnet2_avsr_llm.analysis.sinks import hooked
from espnet2_avsr_llm.data.atomic import atomic_path
from espnet2_avsr_llm.data.noise import named_rng
from espnet2_avsr_llm.inference.generate import generate
from espnet2_avsr_llm.inference.speech2text import Encoded, Speech2Text
from espnet2_avsr_llm.model import ROLES, AVSRLLM
from espnet2_avsr_llm.pass_plan import Pass
from espnet2_avsr_llm.sequence import IGNORE, LLMInput, Role

REMOVALS = ("zero", "mean", "remove")
SCORES = ("log_prob", "logit", "released")
MOST_EXACT = 16  # players whose 2^p coalitions are enumerated at most

SetFunction = Callable[[np.ndarray], np.ndarray]  # coalitions (n, p), 1 where kept -> scores (n, T)
Estimate = tuple[np.ndarray, np.ndarray]  # φ (p, T) and its standard error (p, T), NaN where unknown


class TokenScores:
    """The set function f of one utterance.

    Args:
        model: in eval mode.
        inputs: of ``model.prepare`` for one utterance with its hypothesis as the text.
        pass_: the pass, which chooses the adapter.
        removal: ``zero``, ``mean`` or ``remove``.
        score: ``log_prob``, ``logit`` or ``released``.
        batch_size: coalitions that go through the LLM together.

    Attributes:
        players: (p,) positions of the players.
        evaluations: coalitions that went through the LLM so far.

    Raises:
        ValueError: unknown removal or score, several rows, or no text.
    """

    def __init__(self, model: AVSRLLM, inputs: LLMInput, pass_: Pass, removal: str = "zero", score: str = "log_prob", batch_size: int = 32):
        for name, value, known in (("removal", removal, REMOVALS), ("score", score, SCORES)):
            if value not in known:
                raise ValueError(f"shap {name}: {value!r}; choose from {', '.join(known)}")
        if len(inputs.roles) != 1 or not inputs.num_labels:
            raise ValueError(f"TokenScores reads one utterance with its hypothesis, found {len(inputs.roles)} rows, {inputs.num_labels} labels")
        self.model, self.pass_, self.removal, self.score, self.batch_size = model, pass_, removal, score, batch_size
        self.embeds, self.roles = inputs.inputs_embeds[0], inputs.roles[0]
        self.labels = inputs.labels[0][inputs.labels[0] != IGNORE]
        self.players = torch.isin(self.roles, self.roles.new_tensor(list(ROLES.values()))).nonzero()[:, 0]
        self._absent = self._replacement()
        self._known: dict[bytes, np.ndarray] = {}

    @property
    def evaluations(self) -> int:
        return len(self._known)

    def __call__(self, kept: np.ndarray) -> np.ndarray:
        """Scores (n, T), float64, of coalitions (n, p): nonzero where a player is kept."""
        kept = np.asarray(kept, dtype=bool)
        keys = [row.tobytes() for row in np.packbits(kept, axis=1)]
        new = list({key: i for i, key in enumerate(keys) if key not in self._known}.values())
        for start in range(0, len(new), self.batch_size):
            rows = new[start : start + self.batch_size]
            self._known |= zip([keys[i] for i in rows], self._run(torch.from_numpy(kept[rows]).to(self.embeds.device)))
        return np.stack([self._known[key] for key in keys])

    def _replacement(self) -> Tensor:
        """(p, D) of what stands where a player was."""
        x = self.embeds[self.players]
        if self.removal != "mean":
            return torch.zeros_like(x)
        of = self.roles[self.players]
        means = {role: x[of == role].mean(0) for role in of.unique().tolist()}
        return torch.stack([means[role] for role in of.tolist()]) if len(x) else x

    @torch.no_grad()
    def _run(self, kept: Tensor) -> np.ndarray:
        embeds, mask = self._input(kept)
        with self.model.use(self.pass_), float32_head(self.model.llm.model):
            logits = self.model.llm(embeds, mask, (mask.cumsum(1) - 1).clamp(min=0), len(self.labels) + 1).logits
        return self._scores(logits).double().cpu().numpy()

    def _input(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (n, N, D) and mask (n, N) of coalitions (n, p)."""
        if self.removal != "remove":
            embeds = self.embeds.repeat(len(kept), 1, 1)
            embeds[:, self.players] = torch.where(kept[..., None], self.embeds[self.players], self._absent)
            return embeds, torch.ones(embeds.shape[:2], dtype=torch.long, device=kept.device)
        stays = torch.ones(len(kept), len(self.embeds), dtype=torch.bool, device=kept.device)
        stays[:, self.players] = kept
        rows, ones = zip(*((self.embeds[s], s[s].long()) for s in stays))
        return tuple(pad_sequence(list(of), batch_first=True, padding_side="left") for of in (rows, ones))

    def _scores(self, logits: Tensor) -> Tensor:
        """(n, T) from logits (n, T + 1, V), of which position t predicts token t."""
        logits = logits[:, 1:] if self.score == "released" else logits[:, :-1]
        scores = logits.gather(2, self.labels.expand(len(logits), -1)[..., None])[..., 0]
        if self.score == "log_prob":
            # row by row: the exponentials of all logits would be the largest tensor here
            scores = scores - torch.stack([row.logsumexp(-1) for row in logits])
        return scores


@contextmanager
def float32_head(llm: nn.Module):
    """Context in which the LLM's head multiplies in float32, whatever its weights are kept in."""
    head = llm.get_output_embeddings()

    def multiply(_, args: tuple[Tensor], output: Tensor) -> Tensor:
        return F.linear(args[0].float(), head.weight.float(), None if head.bias is None else head.bias.float())

    with hooked([head] if head.weight.dtype.is_floating_point and head.weight.dtype != torch.float32 else [], multiply):
        yield


# ---- estimators --------------------------------------------------------------------------------------------------------


def exact(f: SetFunction, players: int, max_evals: int, seed: int) -> Estimate:
    """All 2^p coalitions; nothing is random.

    Raises:
        ValueError: too many players.
    """
    if players > MOST_EXACT:
        raise ValueError(f"exact Shapley values of {players} players need 2^{players} evaluations; at most {MOST_EXACT} players, or permutation")
    coalitions = np.arange(2**players)
    kept = (coalitions[:, None] >> np.arange(players)) & 1
    values, sizes = f(kept), kept.sum(1)
    factorial = np.cumprod([1.0, *range(1, players + 1)])
    weights = factorial[sizes] * factorial[np.maximum(players - sizes - 1, 0)] / factorial[players]
    phi = []
    for k in range(players):
        without = coalitions[kept[:, k] == 0]
        phi.append(weights[without] @ (values[without | (1 << k)] - values[without]))
    return np.stack(phi), np.zeros((players, values.shape[1]))


def permutation(f: SetFunction, players: int, max_evals: int, seed: int) -> Estimate:
    """Walks along random orders, forward and back (``shap.PermutationExplainer``); the standard error is over the walks.

    Raises:
        ValueError: fewer evaluations than one walk makes.
    """
    import shap

    walk = 2 * players + 1
    if max_evals < walk:
        raise ValueError(f"permutation: one walk over {players} players takes {walk} evaluations, but max_evals is {max_evals}")
    with _numpy_seed():
        explainer = shap.PermutationExplainer(f, shap.maskers.Independent(np.zeros((1, players))), seed=seed)
        walks = np.stack([explainer(np.ones((1, players)), max_evals=walk, silent=True).values[0] for _ in range(max_evals // walk)])
    error = walks.std(0, ddof=1) / np.sqrt(len(walks)) if len(walks) > 1 else np.full(walks[0].shape, np.nan)
    return walks.mean(0), error


def sampling(f: SetFunction, players: int, max_evals: int, seed: int) -> Estimate:
    """Pairs with and without one player in random orders, more where they vary more (``shap.SamplingExplainer``).

    The paper's M counts pairs: its 2000 are ``max_evals`` 4000 here.

    Raises:
        ValueError: fewer evaluations than two pairs for each player.
    """
    import shap

    if max_evals < 4 * players:
        raise ValueError(f"sampling: {players} players take {4 * players} evaluations at least, but max_evals is {max_evals}")
    variances: dict[int, list[tuple[int, np.ndarray]]] = {}

    class Explainer(shap.SamplingExplainer):
        """Notes the variances, and keeps them above zero: shap divides by their sum."""

        def sampling_estimate(self, j, f, x, X, nsamples=10):
            mean, variance = super().sampling_estimate(j, f, x, X, nsamples)
            variances.setdefault(int(j), []).append((nsamples, variance))
            return mean, variance + 1e-30

    with _numpy_seed(seed):
        values = Explainer(f, np.zeros((1, players))).shap_values(np.ones((1, players)), nsamples=max_evals // 2, silent=True)
    phi = np.asarray(values).reshape(players, -1)
    return phi, np.stack([_standard_error(variances[k]) if k in variances else np.zeros(phi.shape[1]) for k in range(players)])


def _standard_error(rounds: list[tuple[int, np.ndarray]]) -> np.ndarray:
    """Of the mean over rounds of ``n`` samples with their variances."""
    return np.sqrt(sum(n * variance for n, variance in rounds)) / sum(n for n, _ in rounds)


@contextmanager
def _numpy_seed(seed: int | None = None):
    """shap draws from numpy's global generator: seed it, and leave it as it was."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


ESTIMATORS: dict[str, Callable[[SetFunction, int, int, int], Estimate]] = {
    "permutation": permutation,
    "sampling": sampling,
    "exact": exact,
}


# ---- one utterance -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """How Shapley values are computed; also what a finished utterance is recognised by."""

    estimator: str = "permutation"
    max_evals: int = 2000
    removal: str = "zero"
    score: str = "log_prob"
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self):
        if self.estimator not in ESTIMATORS:
            raise ValueError(f"shap estimator: {self.estimator!r}; choose from {', '.join(ESTIMATORS)}")


@dataclass
class Explanation:
    """Shapley values of one utterance.

    Attributes:
        phi: (p, T).
        error: (p, T) standard errors; NaN where unknown.
        streams: (p,) name of each player's stream.
        token_ids: (T,) the hypothesis with EOS.
        full: (T,) f(P).
        empty: (T,) f(∅).
        evaluations: distinct coalitions that went through the LLM.
    """

    phi: np.ndarray
    error: np.ndarray
    streams: np.ndarray
    token_ids: np.ndarray
    full: np.ndarray
    empty: np.ndarray
    evaluations: int


def explain(model: AVSRLLM, inputs: LLMInput, pass_: Pass, settings: Settings) -> Explanation:
    """Shapley values of one utterance.

    Args:
        model: in eval mode.
        inputs: of ``model.prepare`` for one utterance with its hypothesis as the text.
        pass_: the pass.
        settings: how.
    """
    f = TokenScores(model, inputs, pass_, settings.removal, settings.score, settings.batch_size)
    players = len(f.players)
    empty, full = f(np.stack([np.zeros(players), np.ones(players)]))
    phi, error = ESTIMATORS[settings.estimator](f, players, settings.max_evals, settings.seed)
    streams = np.array([Role(r).name.lower() for r in f.roles[f.players].tolist()])
    return Explanation(phi, error, streams, f.labels.cpu().numpy(), full, empty, f.evaluations)


def explain_utterance(speech2text: Speech2Text, utt: str, encoded: Encoded, settings: Settings) -> Explanation:
    """Decode an utterance once, and explain that hypothesis; random orders are drawn from the seed and the utterance's id."""
    model, (features, pass_, seconds) = speech2text.model, encoded
    hypothesis = generate(model, features, pass_, [seconds], speech2text.search)[0][0]
    ids = torch.tensor([hypothesis.token_ids], dtype=torch.long, device=model.device)
    with torch.no_grad():
        inputs, _ = model.prepare(features, pass_, (ids, torch.tensor([ids.shape[1]])))
    seed = int(named_rng(settings.seed, utt).integers(2**32))
    return explain(model, inputs, pass_, replace(settings, seed=seed))


def write_explanation(file: Path, found: Explanation, about: Mapping[str, Any]) -> None:
    """Write an ``.npz`` of the fields of an explanation and, as JSON, of what it came from."""
    arrays = {name: np.asarray(value) for name, value in vars(found).items()}
    with atomic_path(file) as temporary, open(temporary, "wb") as f:
        np.savez_compressed(f, about=np.array(json.dumps(about)), **arrays)


def read_explanation(file: Path, about: Mapping[str, Any], newer_than: float = 0) -> Explanation | None:
    """Read it back; None if there is none, it came from something else, or it is older than the model."""
    if not file.is_file() or file.stat().st_mtime < newer_than:
        return None
    with np.load(file, allow_pickle=False) as arrays:
        if json.loads(str(arrays["about"])) != json.loads(json.dumps(about)):
            return None
        return Explanation(**{f.name: arrays[f.name] for f in fields(Explanation)})
