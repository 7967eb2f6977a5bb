"""One model for all systems: encoders -> compression -> projector -> sequence -> frozen LLM with adapter.

Shapes: `B` batch, `T` frames, `F` feature width, `N` LLM tokens, `D` LLM width, `L` text tokens, `V` vocabulary.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Callable, Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet2_avsr_llm.checkpoint import Checkpointed
from espnet2_avsr_llm.frontend.abs_frontend import AbsFrontend, Lengthed
from espnet2_avsr_llm.llm.causal_lm import CausalLM
from espnet2_avsr_llm.llm.tokens import DELIMITERS
from espnet2_avsr_llm.pass_plan import Pass, task_of
from espnet2_avsr_llm.ranks import sum_over_ranks
from espnet2_avsr_llm.sequence import IGNORE, LLMInput, Role, Segment, lay_out

ROLES = {"audio": Role.AUDIO, "video": Role.VIDEO, "audiovisual": Role.AUDIOVISUAL}


@dataclass
class PassOutput:
    """What one pass gives.

    Attributes:
        loss: cross-entropy, mean over the scored tokens of the batch.
        terms: further loss terms by name, already weighted.
        accuracy: share of scored tokens that are the most probable ones.
    """

    loss: Tensor
    accuracy: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """Cross-entropy plus the further terms."""
        return self.loss + sum(self.terms.values())


class AVSRLLM(Checkpointed):
    """Speech recognition with an LLM from audio, video or both.

    Args:
        frontends: encoders by the name of their part (``audio_frontend``, ``video_frontend``).
        compression: features in time -> fewer features.
        projector: features of each stream -> LLM width.
        llm: the frozen LLM.
        adapter: what is trained in the LLM; None trains the projector alone.
        plan: the passes of a training step.
        losses: terms beside the cross-entropy, by name; each is a function of the LLM's hidden states and the roles of the tokens.
    """

    def __init__(
        self,
        frontends: dict[str, AbsFrontend],
        compression,
        projector: nn.Module,
        llm: CausalLM,
        adapter,
        plan,
        losses: Mapping[str, Callable[[tuple[Tensor, ...], Tensor], Tensor]],
    ):
        super().__init__()
        self.frontends = nn.ModuleDict(frontends)
        self.compression, self.projector, self.llm, self.adapter, self.plan = compression, projector, llm, adapter, plan
        self.losses = losses

    # ---- from inputs to the LLM's input -------------------------------------------------------------------------------

    def input_names(self, streams: Collection[str] | None = None) -> list[str]:
        """Names of the batch entries behind some streams (None: behind all), in alphabetical order."""
        read = (f for f in self.frontends.values() if streams is None or not f.streams.keys().isdisjoint(streams))
        return sorted({name for frontend in read for name in frontend.inputs})

    def inputs(self, batch: dict[str, Tensor], streams: Collection[str] | None = None) -> dict[str, Lengthed]:
        """The entries of a batch behind some streams (None: behind all), with their lengths.

        Raises:
            ValueError: one is missing.
        """
        names = self.input_names(streams)
        absent = sorted(n for n in names if n not in batch)
        if absent:
            raise ValueError(f"The batch lacks {', '.join(absent)}; it has {', '.join(sorted(batch))}. Give it to the data options of training")
        return {name: (batch[name], batch[f"{name}_lengths"]) for name in names}

    def encode(self, inputs: dict[str, Lengthed]) -> dict[str, Lengthed]:
        """Run once every encoder whose inputs are given.

        Args:
            inputs: ``speech`` (B, T) and ``video`` (B, T, 88, 88), as the frontends ask, with lengths.

        Returns:
            Features (B, T, F) and lengths of each stream, in float32 for the projector.
        """
        features: dict[str, Lengthed] = {}
        for frontend in self.frontends.values():
            if not inputs.keys() >= set(frontend.inputs):
                continue
            with torch.set_grad_enabled(torch.is_grad_enabled() and not frontend.frozen):
                encoded = frontend(**_moved({name: inputs[name] for name in frontend.inputs}, frontend.device))
            features |= {stream: (x.float(), lengths) for stream, (x, lengths) in encoded.items()}
        return _moved(features, next(self.projector.parameters()).device)

    def tokens(self, features: dict[str, Lengthed], pass_: Pass) -> tuple[dict[str, Lengthed], dict[str, Tensor]]:
        """Compress and project the streams of one pass: (B, N, D) and lengths of each, and the projector's loss terms."""
        compressed = {s: self.compression(*features[s], rate) for s, rate in sorted(pass_.rates.items())}
        streams, terms = self.projector(compressed, dict(pass_.rates))
        return _moved(streams, self.device), terms

    def prepare(self, features: dict[str, Lengthed], pass_: Pass, text: Lengthed | None = None) -> tuple[LLMInput, dict[str, Tensor]]:
        """Lay out the LLM's input of one pass.

        Args:
            features: of :meth:`encode`.
            pass_: the pass.
            text: ids (B, L) without BOS and EOS, and lengths; None to decode.

        Returns:
            The input, and the projector's loss terms.

        Raises:
            ValueError: an utterance has no token of any stream.
        """
        streams, terms = self.tokens(features, pass_)
        lengths = {s: n.tolist() for s, (_, n) in streams.items()}
        texts = self._embed_text(text) if text is not None else None
        batch = len(next(iter(lengths.values())))
        rows = []
        for b in range(batch):
            present = {s: x[b, : lengths[s][b]] for s, (x, _) in streams.items() if lengths[s][b] > 0}
            rows.append(self._prefix(present, b) + ([texts[b]] if texts else []))
        return lay_out(rows), terms

    def _prefix(self, present: dict[str, Tensor], row: int) -> list[Segment]:
        """BOS, the block of each stream that is there, and the prompt of the task that remains."""
        task = task_of(present)
        if task is None:
            raise ValueError(f"Row {row} of the batch has no audio and no video token: its inputs are empty or shorter than one rate step")
        tokens = self.llm.tokens
        segments: list[Segment] = [] if tokens.bos_id is None else [(Role.BOS, self._embed([tokens.bos_id]), None)]
        for stream, x in present.items():
            block: list[Segment] = [(ROLES[stream], x, None)]
            if stream in DELIMITERS:
                start, end = self._embed(tokens.delimiter_ids(stream)).split(1)
                block = [(Role.DELIMITER, start, None), *block, (Role.DELIMITER, end, None)]
            segments += block
        return segments + [(Role.PROMPT, self._embed(tokens.prompt_ids(task)), None)]

    def _embed(self, ids) -> Tensor:
        return self.llm.embed(torch.tensor(ids, device=self.device))

    def _embed_text(self, text: Lengthed) -> list[Segment]:
        ids, lengths = text
        eos = ids.new_tensor([self.llm.tokens.eos_id])
        labels = [torch.cat([row[:n], eos]) for row, n in zip(ids, lengths.tolist())]
        embedded = self.llm.embed(torch.cat(labels)).split([len(y) for y in labels])
        return [(Role.TEXT, x, y) for x, y in zip(embedded, labels)]

    # ---- training -----------------------------------------------------------------------------------------------------

    def predict(
        self, features: dict[str, Lengthed], pass_: Pass, text: Lengthed
    ) -> tuple[Tensor, LLMInput, tuple[Tensor, ...] | None, dict[str, Tensor]]:
        """One pass through the LLM.

        Args:
            features, pass_, text: as of :meth:`prepare`.

        Returns:
            Logits (B, L, V) in float32 of the text with EOS, at the end of each row; the LLM's input; its hidden states (B, N, D), if a
            loss term reads them; and the loss terms of projector and adapter.
        """
        text = text[0].to(self.device), text[1].to(self.device)
        inputs, terms = self.prepare(features, pass_, text)
        keep = inputs.num_labels + 1
        with self.llm.within(lambda: self.use(pass_, inputs.attention_mask)):
            output = self.llm(inputs.inputs_embeds, inputs.attention_mask, inputs.position_ids, keep, bool(self.losses))
            terms |= self.adapter.losses() if self.adapter is not None else {}
        return output.logits[:, :-1].float(), inputs, output.hidden_states, terms

    def run_pass(self, features: dict[str, Lengthed], pass_: Pass, text: Lengthed) -> PassOutput:
        """One pass through the LLM and its loss; the logits are not kept, but for what the backward pass needs."""
        logits, inputs, hidden_states, terms = self.predict(features, pass_, text)
        labels = inputs.labels[:, -logits.shape[1] :]
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
        scored = labels != IGNORE
        accuracy = (logits.detach().argmax(-1) == labels)[scored].float().mean()
        tokens = scored.sum()
        share = tokens / sum_over_ranks(tokens)  # by which ESPnet weights this rank's loss; terms are parts of a sum over ranks
        terms |= {name: term(hidden_states, inputs.roles) for name, term in self.losses.items()}
        return PassOutput(loss, accuracy, {name: part.to(share.device) / share for name, part in terms.items()})

    def use(self, pass_: Pass, attention_mask: Tensor | None = None) -> AbstractContextManager:
        """Context in which the adapter is that of ``pass_``; the mask is for training, where an adapter may have losses."""
        return nullcontext() if self.adapter is None else self.adapter.use(pass_, attention_mask)

    def merged(self, pass_: Pass) -> AbstractContextManager:
        """Context in which the adapter's part for ``pass_`` is merged into the LLM, for decoding.

        Raises:
            ValueError: the adapter cannot be merged.
        """
        if not hasattr(self.adapter, "merged"):
            raise ValueError(f"The adapter {type(self.adapter).__name__} cannot be merged into the LLM")
        return self.adapter.merged(pass_)

    @property
    def device(self) -> torch.device:
        """Where the LLM is, and so the LLM's input."""
        return self.llm.model.device


def _moved(tensors: dict[str, Lengthed], device: torch.device) -> dict[str, Lengthed]:
    """The same on another device: parts may be kept on devices of their own."""
    return {name: (x.to(device), lengths.to(device)) for name, (x, lengths) in tensors.items()}
