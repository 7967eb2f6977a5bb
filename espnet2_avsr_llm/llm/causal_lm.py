"""A frozen causal LLM from the Hugging Face hub, never subclassed or patched.

Shapes: `B` batch, `N` LLM tokens, `D` LLM width, `V` vocabulary.
"""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Callable

import torch
from torch import Tensor, nn

from espnet2_avsr_llm.hub.build import build, from_folder, torch_dtype
from espnet2_avsr_llm.hub.pretrained import Pretrained
from espnet2_avsr_llm.hub.resolve import SourceError
from espnet2_avsr_llm.llm.tokens import Tokens, load_tokens

NEEDED = {"inputs_embeds", "attention_mask", "position_ids", "logits_to_keep"}  # arguments of the LLM's forward
QUANTS = {
    "4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "8bit": {"load_in_8bit": True},
}
ADDED_ROWS_SEED = 0  # the added rows are random and frozen, so they are drawn the same in every experiment


class CausalLM(Pretrained):
    """Any ``AutoModelForCausalLM``, with its tokenizer and the rows of the added tokens.

    The added rows (padding and the delimiters of the audio and video blocks) are random and frozen, as in every released
    system, and travel in the checkpoint as the small buffers ``added_input_rows`` and ``added_output_rows``.

    Args:
        arch: name of an architecture in ``arch/``; it names the hub id and gives the sizes for ``init: random``.
        source: folder or hub id of the weights, instead of the hub id of ``arch``.
        revision: branch, tag or commit of a hub id.
        init: ``pretrained``, or ``random`` (the architecture without weights, to measure sizes and speed).
        dtype: number format of the frozen weights, and of the computation where they are quantised.
        quant: ``4bit`` (NF4, double quantisation; QLoRA, arXiv 2305.14314) or ``8bit`` (LLM.int8(), arXiv 2208.07339) keeps the frozen
            linear layers so; needs the extra ``quant``. A checkpoint belongs to the quantisation that it was trained with. 8bit picks
            outlier columns over a whole batch, so there an utterance depends slightly on the others.
        device: keeps the LLM there (``cuda:1``), or spreads its layers over all GPUs (``auto``), wherever the rest is moved.
        attn_implementation: as in transformers (``sdpa``, ``eager``, ``flash_attention_2``); None takes the fastest that the model has.
        rope_frequency_dtype: number format to which the frequencies of the rotary positions are rounded. The released systems
            were trained and decoded with bfloat16 frequencies (system specification, section 10, item 17).
        gradient_checkpointing: recompute each layer in the backward pass instead of keeping its activations.

    Raises:
        SourceError: the source is missing, gated or damaged, or its model cannot be run on embeddings.
    """

    def __init__(
        self,
        arch: str | None = None,
        source: str | None = None,
        revision: str | None = None,
        init: str = "pretrained",
        dtype: str = "bfloat16",
        quant: str | None = None,
        device: str | None = None,
        attn_implementation: str | None = None,
        rope_frequency_dtype: str = "float32",
        gradient_checkpointing: bool = False,
    ):
        from transformers import GenerationConfig

        super().__init__()
        self.tokens: Tokens = load_tokens(source, revision, init, arch)
        number = torch_dtype(dtype)
        if quant and init == "random" and torch.get_default_device().type != "meta":
            raise SourceError(f"llm quant: {quant} with init: random: quant needs pretrained weights")
        options = {"dtype": number, "attn_implementation": attn_implementation}
        placed = options | placement(quant, device, number)
        load, random = (lambda folder, _: _pretrained(folder, placed)), (lambda facts: _random(facts, options))
        self.model, origin, commit = build(source, init, arch, revision, number, load, random)
        # The source's own defaults (sampling, penalties, lengths) would fill what a search leaves open.
        self.model.generation_config = GenerationConfig()
        self.adopt("model", self.model, origin + (f" in {quant}" if quant else ""), commit)
        self.provenance["tokenizer"] = self.tokens.digest()
        round_frequencies(self.model, torch_dtype(rope_frequency_dtype))
        self._add_rows()
        self._context: Callable[[], AbstractContextManager] = nullcontext
        self._checkpointing = gradient_checkpointing
        if gradient_checkpointing:
            # the older 5.x call it gradient checkpointing
            enable = getattr(self.model, "activation_checkpointing_enable", None) or self.model.gradient_checkpointing_enable
            enable({"use_reentrant": False, "context_fn": self._checkpoint_contexts})
        if init == "pretrained" and "device_map" in placed:
            self.pinned = self.device.type != "meta"
        else:
            self.pin(device)

    @property
    def width(self) -> int:
        """LLM width ``D``."""
        return self.model.get_input_embeddings().weight.shape[1]

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers, first to last.

        Raises:
            ValueError: the model keeps them in no list of their own.
        """
        number = self.model.config.get_text_config().num_hidden_layers
        found = next((m for m in self.model.get_decoder().modules() if isinstance(m, nn.ModuleList) and len(m) == number), None)
        if found is None:
            raise ValueError(f"{type(self.model).__name__} keeps its {number} decoder layers in no list of {number} modules")
        return found

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings (..., D) of ids, in float32 as the projector's tokens are."""
        return self.model.get_input_embeddings()(ids).float()

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor, position_ids: Tensor, logits_to_keep: int, output_hidden_states: bool = False
    ):
        """The LLM's output, of the last positions only: the head over the long prefix would be waste.

        Args:
            inputs_embeds: (B, N, D).
            attention_mask: (B, N), 1 where valid.
            position_ids: (B, N).
            logits_to_keep: number of positions.
            output_hidden_states: also give the embeddings and each layer's output.

        Returns:
            ``logits`` (B, logits_to_keep, V); ``hidden_states``, L + 1 tensors (B, N, D) where asked for.
        """
        return self.model(
            inputs_embeds=inputs_embeds.to(self.model.dtype),
            attention_mask=attention_mask,
            position_ids=position_ids,
            logits_to_keep=logits_to_keep,
            use_cache=False,
            output_hidden_states=output_hidden_states,
        )

    @contextmanager
    def within(self, context: Callable[[], AbstractContextManager]):
        """Run LLM calls inside ``context()``; with gradient checkpointing it is entered again for each recompute.

        Without that, the backward pass would recompute every layer with the adapter of the last pass.
        """
        outer, self._context = self._context, context
        try:
            with context():
                yield
        finally:
            self._context = outer

    def train(self, mode: bool = True):
        """Stay in eval mode; only the layers' own flag, which transformers reads to decide on checkpointing, follows."""
        super().train(False)
        if self._checkpointing:
            for layer in self.model.modules():
                if hasattr(layer, "gradient_checkpointing"):
                    layer.training = mode
        return self

    def _checkpoint_contexts(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), self._context()

    def _add_rows(self) -> None:
        rows = self.model.get_input_embeddings().weight.shape[0]
        if len(self.tokens) > rows:
            self.model.resize_token_embeddings(len(self.tokens), mean_resizing=False)
        self.model.requires_grad_(False)
        self._tied = self.model.get_output_embeddings().weight is self.model.get_input_embeddings().weight
        std = getattr(self.model.config, "initializer_range", 0.02)
        generator = torch.Generator().manual_seed(ADDED_ROWS_SEED)
        for name in ["added_input_rows"] + ["added_output_rows"] * (not self._tied):
            drawn = torch.empty(len(self.tokens.added_ids), self.width, device="cpu").normal_(0.0, std, generator=generator)
            self.register_buffer(name, drawn.to(self.model.device))
        self._write_rows()
        self.register_load_state_dict_post_hook(lambda module, _: module._write_rows())

    @torch.no_grad()
    def _write_rows(self) -> None:
        ids = torch.tensor(self.tokens.added_ids)
        for name, layer in (
            ("added_input_rows", self.model.get_input_embeddings()),
            ("added_output_rows", self.model.get_output_embeddings()),
        ):
            if hasattr(self, name):
                layer.weight[ids.to(layer.weight.device)] = getattr(self, name).to(layer.weight)


@torch.no_grad()
def round_frequencies(model: nn.Module, dtype: torch.dtype) -> None:
    """Round the values of every rotary frequency buffer to ``dtype``; the buffer keeps its own format."""
    for name, frequencies in model.named_buffers():
        if name.endswith("inv_freq"):
            frequencies.copy_(frequencies.to(dtype))


def placement(quant: str | None, device: str | None, dtype: torch.dtype) -> dict:
    """Arguments of ``from_pretrained`` for quantised weights and for a device of the LLM's own.

    Raises:
        ValueError: unknown quantisation.
        SourceError: the package for it is not installed.
    """
    if quant is None:
        return {} if device is None else {"device_map": device}
    if quant not in QUANTS:
        raise ValueError(f"llm quant {quant!r}: choose from {', '.join(QUANTS)}, or null")
    if find_spec("bitsandbytes") is None:
        raise SourceError(f"llm quant: {quant} needs bitsandbytes, which is not installed: pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    compute = {"bnb_4bit_compute_dtype": dtype} if quant == "4bit" else {}
    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"  # weights are quantised where they stay
    return {"quantization_config": BitsAndBytesConfig(**QUANTS[quant], **compute), "device_map": device or str(here)}


def _pretrained(folder: str, options: dict) -> nn.Module:
    from transformers import AutoModelForCausalLM

    return _checked(from_folder(AutoModelForCausalLM, folder, **options))


def _random(facts: dict, options: dict) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(facts.pop("model_type"), **facts)
    return _checked(AutoModelForCausalLM.from_config(config, **options))


def _checked(model: nn.Module) -> nn.Module:
    lacking = sorted(NEEDED - set(inspect.signature(model.forward).parameters))
    if lacking:
        raise SourceError(f"{type(model).__name__} takes no {' and no '.join(lacking)}: such an LLM cannot read sound or pictures in padded batches")
    return model
