"""What a checkpoint holds, and how it is read back.

It holds projectors, adapters, added rows and buffers of our own; never a tensor that can be rebuilt from its recorded source
(design contract 4). Loading is strict in both directions whatever the caller asks, because ESPnet asks for ``strict=False``.
"""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any, Iterable

import torch
from torch import Tensor, nn

from espnet2_avsr_llm.data.atomic import atomic_path
from espnet2_avsr_llm.hub.pretrained import Pretrained, refuse_non_finite

_SHOWN = 10  # names that an error lists


class Checkpointed(nn.Module):
    """Mixin: checkpoints without the tensors of pretrained sources, with the sources' fingerprints."""

    def provenance(self) -> dict[str, dict[str, str]]:
        """Source, commit and digest of each pretrained part (of an LLM's tokenizer too), by module name."""
        return {name: module.provenance for name, module in self._pretrained()}

    def _pretrained(self) -> list[tuple[str, Pretrained]]:
        return [(name, m) for name, m in self.named_modules() if isinstance(m, Pretrained)]

    def _own(self, names: Iterable[str]) -> list[str]:
        """Those of the tensors that no source gives."""
        parts = self._pretrained()  # once: it walks through all modules
        return [n for n in names if not any(n.startswith(f"{part}.") and m.is_external(n[len(part) + 1 :]) for part, m in parts)]

    def get_extra_state(self) -> Tensor:
        """Provenance as bytes of JSON in a tensor, so that ESPnet's tools meet nothing but tensors."""
        return torch.tensor(list(json.dumps(self.provenance(), sort_keys=True).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Compare the sources recorded in a checkpoint with those of this model.

        Raises:
            RuntimeError: a part was trained over another source; both are named.
        """
        recorded, here = json.loads(bytes(state.tolist())), self.provenance()
        for part in sorted(recorded.keys() | here.keys()):
            old, new = recorded.get(part), here.get(part)
            if old is None or new is None or old["digest"] != new["digest"]:
                raise RuntimeError(f"The checkpoint was trained with {part} = {_describe(old)}, but this model has {_describe(new)}")
            if "tokenizer" in old and old["tokenizer"] != new["tokenizer"]:  # the first checkpoints recorded none
                raise RuntimeError(f"The checkpoint was trained with another vocabulary of {part} than that of {_describe(new)}")

    def state_dict(self, *args, **kwargs) -> dict[str, Any]:
        """As of ``nn.Module``, without the tensors of pretrained sources."""
        states = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", "")
        own = {prefix + name for name in self._own(n[len(prefix) :] for n in states)}
        for name in states.keys() - own:
            del states[name]
        return states

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        """Load a checkpoint; missing or unexpected tensors are errors even with ``strict=False``.

        Raises:
            RuntimeError: the checkpoint is of another model, or holds NaN; the message says what differs.
        """
        refuse_non_finite({name: t for name, t in state_dict.items() if isinstance(t, Tensor)}, "The checkpoint")
        result = super().load_state_dict(state_dict, strict=False, assign=assign)
        missing = self._own(result.missing_keys)
        if missing or result.unexpected_keys:
            raise RuntimeError(f"The checkpoint is of another model. {_listed('It lacks', missing)}{_listed('It has besides', result.unexpected_keys)}")
        return result


def _describe(source: dict[str, str] | None) -> str:
    if source is None:
        return "no such part"
    return f"{source['source']}{'@' + source['revision'] if source['revision'] else ''} (digest {source['digest']})"


def _listed(intro: str, names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{intro}: {', '.join(names[:_SHOWN])}{more}. " if names else ""


def save(states: Any, path: Path | str) -> None:
    """``torch.save`` that leaves either the old file or the whole new one, whatever happens meanwhile."""
    with atomic_path(path) as temporary:
        torch.save(states, temporary)


def load(path: Path | str, map_location="cpu") -> Any:
    """``torch.load`` that executes nothing from the file.

    Raises:
        RuntimeError: it is truncated, or asks for what no checkpoint needs.
    """
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as e:
        name = re.search(r"GLOBAL (\S+)", str(e))
        asks = f"asks for {name[1]}, which no checkpoint needs" if name else f"cannot be read safely ({str(e).splitlines()[-1]})"
        raise RuntimeError(f"{path} {asks}. It was refused, and nothing of it was run") from e
    except (RuntimeError, EOFError) as e:
        raise RuntimeError(f"{path} is truncated or no checkpoint: {e}") from e


def average(paths: Iterable[Path]) -> dict[str, Tensor]:
    """Arithmetic mean of checkpoints: floating-point tensors in float64, others taken from the first.

    Raises:
        RuntimeError: the checkpoints are not of one model.
    """
    states = [load(path) for path in paths]
    if any(s.keys() != states[0].keys() for s in states):
        raise RuntimeError("Checkpoints of different models cannot be averaged")
    return {
        name: torch.stack([s[name].double() for s in states]).mean(0).to(first.dtype) if first.is_floating_point() else first
        for name, first in states[0].items()
    }
