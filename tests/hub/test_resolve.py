"""Names of pretrained parts: folders, hub ids, and the errors that say what to do."""

import json
import subprocess
import sys

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from espnet2_avsr_llm.bin import check_parts
from espnet2_avsr_llm.hub.build import build
from espnet2_avsr_llm.hub.resolve import SourceError, arch, resolve


def test_a_folder_is_itself(tmp_path):
    assert resolve(str(tmp_path)) == tmp_path


def test_a_checkpoint_is_no_folder(tmp_path):
    (tmp_path / "large_vox_iter5.pt").touch()
    with pytest.raises(SourceError, match="large_vox_iter5.pt is a file, but a source is a folder: `avsr-llm convert` makes one"):
        resolve(str(tmp_path / "large_vox_iter5.pt"))


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "llm").mkdir()
    assert resolve("~/llm") == tmp_path / "llm"


@pytest.mark.parametrize("name", ["/absent/folder", "./absent", "~/absent", "absent", "a/b/c"])
def test_a_missing_folder_never_asks_the_hub(name, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(SourceError, match="No folder .*absent|No folder .*a/b/c"):
        resolve(name)


def refusing(error):
    def snapshot_download(*args, **kwargs):
        raise error

    return snapshot_download


class Gated(GatedRepoError):
    """Without the answer of the server that the hub's own class wants (its HTTP library changes between releases)."""

    def __init__(self):
        Exception.__init__(self, "gated")


class Absent(RepositoryNotFoundError):
    def __init__(self):
        Exception.__init__(self, "absent")


class WrongRevision(RevisionNotFoundError):
    def __init__(self):
        Exception.__init__(self, "revision")


@pytest.mark.parametrize(
    "error,message",
    [
        (Gated(), r"meta/llm is gated: accept its licence at https://huggingface\.co/meta/llm.*HF_TOKEN.*To work offline: .*hf download meta/llm"),
        (WrongRevision(), "meta/llm has no revision None: .*/commits/main lists them"),
        (Absent(), "neither a folder here nor a repository on the hub"),
        (LocalEntryNotFoundError("offline"), "in the cache and HF_HUB_OFFLINE is set.*hf download meta/llm"),
        (ConnectionError("no route"), "in the cache and .*hf download meta/llm"),
    ],
)
def test_refusals_say_what_to_do(monkeypatch, error, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refusing(error))
    with pytest.raises(SourceError, match=message):
        resolve("meta/llm")


def test_unreachable_hub(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refusing(ConnectionError("no route")))
    with pytest.raises(SourceError, match="the hub cannot be reached"):
        resolve("meta/llm")


def test_revision_reaches_the_hub(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, revision, **_: asked.append((repo, revision)) or str(tmp_path))
    assert resolve("meta/llm", "v2") == tmp_path and asked == [("meta/llm", "v2")]


@pytest.mark.parametrize("failures", [1, 2])
def test_a_download_that_does_not_add_up_is_made_once_more(monkeypatch, tmp_path, failures):
    forced = []

    def snapshot_download(repo, force_download, **_):
        forced.append(force_download)
        if len(forced) <= failures:
            raise OSError("Consistency check failed: file should be of size 3 but has size 2")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    if failures == 1:
        assert resolve("meta/llm") == tmp_path
    else:
        with pytest.raises(SourceError, match="not in the cache"):
            resolve("meta/llm")
    assert forced == [False, True]


def test_unknown_arch_names_the_nearest():
    with pytest.raises(SourceError, match=r"Unknown arch 'llama-3\.1-8' \(did you mean 'llama-3\.1-8b'\?\)"):
        arch("llama-3.1-8")


def test_no_path_gets_into_the_folder_of_archs():
    with pytest.raises(SourceError, match="Unknown arch"):
        arch("../hub/resolve")


def test_check_parts_ends_with_the_reason(tmp_path, tiny_config, capsys):
    (tmp_path / "a.yaml").write_text(json.dumps(tiny_config(llm_conf={"source": str(tmp_path / "absent")})))
    with pytest.raises(SystemExit) as error:
        check_parts.main(["--config", str(tmp_path / "a.yaml")])
    assert "a.yaml: llm: No folder" in str(error.value.code) and "absent" in str(error.value.code)


def test_early_each_missing_part_is_warned_of_once_and_torch_is_not_needed(tmp_path, tiny_config):
    absent = {"llm_conf": {"source": str(tmp_path / "absent")}, "video_frontend_conf": {"source": "avhubert_large"}}
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(json.dumps(tiny_config(**absent)))
    options = ["--early", "--config", str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"), "--max_epoch", "5"]
    code = f"import sys; from espnet2_avsr_llm.bin import check_parts; check_parts.main({options!r}); assert 'torch' not in sys.modules"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    warnings = out.stderr.splitlines()
    assert len(warnings) == 2 and all(line.startswith("Warning: stage 5 will stop at this: ") for line in warnings)
    assert "video_frontend: No folder" in warnings[0] and "AVHUBERT in db.sh names it" in warnings[0]
    assert f"llm: No folder {tmp_path}/absent" in warnings[1]


def test_check_parts_shows_sources_and_prompts(tmp_path, tiny_config, capsys, sources):
    (tmp_path / "a.yaml").write_text(json.dumps(tiny_config()))
    check_parts.main(["--config", str(tmp_path / "a.yaml")])
    out = capsys.readouterr().out
    assert all(f"{source} -> {source}" in out for source in sources.values())
    assert "'<audio>': 259" in out and "prompt avsr: 'Transcribe speech and video to text.'" in out


def test_check_parts_takes_the_options_of_training(tmp_path, tiny_config, capsys, sources):
    (tmp_path / "a.yaml").write_text(json.dumps(tiny_config(llm_conf={"source": None})))
    check_parts.main(["--config", str(tmp_path / "a.yaml"), "--max_epoch", "5", "--llm_conf", f"source={sources['llama']}"])
    assert f"llm: {sources['llama']} -> " in capsys.readouterr().out


def test_the_commit_of_a_hub_id_is_recorded(tmp_path, monkeypatch):
    """Not the branch that was asked for, which may move."""
    folder = tmp_path / "models--owner--name" / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(folder))
    load = lambda folder, dtype: torch.nn.Linear(1, 1)  # noqa: E731
    assert build("owner/name", "pretrained", None, "main", torch.float32, load, None)[1:] == ("owner/name", "0123abcd")
    assert build(str(tmp_path), "pretrained", None, "main", torch.float32, load, None)[1:] == (str(tmp_path), "")
