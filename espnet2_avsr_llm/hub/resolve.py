"""Turn the name of a pretrained part into a local folder: the one place where paths and hub ids are told apart."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path

from espnet2_avsr_llm.registry import nearest

IGNORED = ["original/*", "*.gguf", "*.onnx", "*.msgpack", "*.h5"]  # other forms of the same weights


class SourceError(RuntimeError):
    """A pretrained part is missing, gated, or not what was expected."""


def resolve(source: str, revision: str | None = None) -> Path:
    """Folder with the files of a pretrained part.

    Args:
        source: a folder, or a Hugging Face hub id (``owner/name``).
        revision: branch, tag or commit of a hub id; ignored for a folder.

    Returns:
        The folder; hub ids are downloaded into the Hugging Face cache (``HF_HOME``).

    Raises:
        SourceError: nothing there, or access refused; the message says what to do.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise SourceError(f"{path} is a file, but a source is a folder: `avsr-llm convert` makes one of a checkpoint of fairseq or of the papers' authors")
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise SourceError(f"No folder {path.resolve()}: give an existing folder or a hub id such as openai/whisper-medium.en")
    return _download(source, revision)


def _download(repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    page = f"https://huggingface.co/{repo}"
    by_hand = f"On a machine with network run `hf download {repo}`, copy the folder here, and name that folder as the source"
    for again in (False, True):
        try:
            return Path(snapshot_download(repo, revision=revision, ignore_patterns=IGNORED, force_download=again))
        except GatedRepoError as e:
            raise SourceError(f"{repo} is gated: accept its licence at {page}, then set HF_TOKEN to a token of that account. To work offline: {by_hand}") from e
        except RevisionNotFoundError as e:
            raise SourceError(f"{repo} has no revision {revision!r}: {page}/commits/main lists them") from e
        except RepositoryNotFoundError as e:
            raise SourceError(f"{repo} is neither a folder here nor a repository on the hub ({page}); a private one needs HF_TOKEN") from e
        except OSError as e:
            if "Consistency check failed" in str(e) and not again:
                continue  # what came is not what the hub announced: it is thrown away and fetched once more
            why = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else f"the hub cannot be reached ({type(e).__name__}: {e!s:.120})"
            raise SourceError(f"{repo} is not in the cache and {why}. {by_hand}") from e
    raise AssertionError("the second round returns or raises")


def commit_of(folder: Path) -> str:
    """The commit that a resolved folder is of: the hub's cache names its folders so; empty for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else ""


def arch(name: str) -> dict:
    """Facts of a public architecture (``arch/NAME.json``): the configuration from which ``init: random`` builds it.

    Raises:
        SourceError: unknown name; the nearest known one is named.
    """
    folder, known = _arch_folder(), arch_names()
    if name not in known:
        raise SourceError(f"Unknown arch {name!r}{nearest(name, known)}; known: {', '.join(known)}")
    return json.loads((folder / f"{name}.json").read_text())


def source_of(source: str | None, arch_name: str | None) -> str:
    """The source of a pretrained part, or else the hub id that its architecture names.

    Raises:
        SourceError: neither is given.
    """
    found = source or (arch(arch_name).get("_name_or_path") if arch_name else None)
    if not found:
        raise SourceError("init: pretrained needs source (a folder or a hub id), or an arch that names its hub id")
    return found


def arch_names() -> list[str]:
    """Names that :func:`arch` knows."""
    return sorted(p.name.removesuffix(".json") for p in _arch_folder().iterdir() if p.name.endswith(".json"))


def _arch_folder():
    return resources.files("espnet2_avsr_llm") / "arch"
