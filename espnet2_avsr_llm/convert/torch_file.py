"""Read a foreign PyTorch checkpoint without executing anything from it: an allow-list of names, and inert stand-ins for other programs' objects.

PyTorch's own restricted unpickler does the reading. Before it starts, every name that the file's pickles ask for is looked up
here: tensors and plain containers are built, objects of fairseq and the like become a :class:`Stub`, any other name refuses the file.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Iterator

import torch

from espnet2_avsr_llm.hub.resolve import SourceError

BUILT = re.compile(
    r"torch\.(\w+Storage|Size|device|float32|float16|bfloat16|float64|int64|int32|uint8|bool)|torch\.storage\.UntypedStorage"
    r"|torch\._utils\._rebuild_(tensor_v2|parameter)|torch\.nn\.parameter\.Parameter"
    r"|collections\.OrderedDict|_codecs\.encode"
)
STUBBED = re.compile(
    r"(fairseq|omegaconf|sentencepiece|avhubert|numpy)\..+|(hubert|hubert_pretraining|typing|pathlib|enum)\.\w+|argparse\.Namespace"
    r"|builtins\.(dict|list|tuple|str|int|float|bool)|collections\.defaultdict"
)
LEGACY_PICKLES = 5  # before torch 1.6: magic number, version, system, the object, its storages' names; then the storages' bytes
STRINGS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"}


class Stub:
    """Stands for an object of another program: keeps its state as attributes, runs none of its code."""

    def __new__(cls, *args, **kwargs):
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


def read_torch_file(path: Path | str) -> Any:
    """The object that ``torch.save`` wrote, in today's or the pre-1.6 format, on the CPU.

    Args:
        path: the file. Its tensors are mapped, not read, where the format allows it.

    Returns:
        The object; foreign objects in it are :class:`Stub`.

    Raises:
        SourceError: it asks for a name that is not allowed (nothing has run then), is truncated, or is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise SourceError(f"No file {path.resolve()}")
    zipped = zipfile.is_zipfile(path)
    try:
        stubs = {name: type(name, (Stub,), {}) for name in _names(path, zipped) if not _is_built(path, name)}
        with torch.serialization.safe_globals([(stub, name) for name, stub in stubs.items()]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except SourceError:
        raise
    except (RuntimeError, ValueError, LookupError, EOFError, MemoryError, OSError, pickle.UnpicklingError, zipfile.BadZipFile) as e:
        raise SourceError(f"{path} ({path.stat().st_size} bytes) is truncated or no PyTorch checkpoint: {e!s:.200}") from e


def _is_built(path: Path, name: str) -> bool:
    """Whether a name is built as it is; False for one that gets a stub."""
    if BUILT.fullmatch(name):
        return True
    if STUBBED.fullmatch(name):
        return False
    raise SourceError(
        f"{path} asks for {name}, which no checkpoint of tensors needs. The file was refused and nothing of it was run; "
        "do not open it by an unrestricted torch.load either"
    )


def _names(path: Path, zipped: bool) -> Iterator[str]:
    """``module.name`` of every global that the file's pickles ask for."""
    if not zipped:
        with open(path, "rb") as stream:
            for _ in range(LEGACY_PICKLES):
                yield from _pickle_names(stream)
        return
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename.startswith("/") or ".." in member.filename.split("/"):
                raise ValueError(f"its member {member.filename!r} leads out of the archive")
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"its member {member.filename!r} is compressed, which torch.save never does")
            if member.filename.endswith(".pkl"):
                yield from _pickle_names(BytesIO(archive.read(member)))


def _pickle_names(stream: BinaryIO) -> Iterator[str]:
    strings: list[str] = []  # in the order pushed: the two before a STACK_GLOBAL are its module and name
    memo: dict[int, str | None] = {}
    top: str | None = None
    for op, arg, _ in pickletools.genops(stream):
        if op.name in ("GLOBAL", "INST"):
            yield _today(*arg.split(" ", 1))
        elif op.name == "STACK_GLOBAL":
            yield _today(*strings[-2:]) if len(strings) > 1 else "an unnamed object"
        elif op.name.startswith("EXT"):
            yield "an object of the copyreg extension registry"
        if op.name == "MEMOIZE" or op.name.endswith("PUT"):
            memo[len(memo) if arg is None else arg] = top
            continue
        top = arg if op.name in STRINGS else memo.get(arg) if op.name.endswith("GET") else None
        strings += [top] if top is not None else []


def _today(module: str, name: str) -> str:
    """The name in Python 3 of what Python 2 wrote."""
    return f"{'builtins' if module == '__builtin__' else module}.{name}"
