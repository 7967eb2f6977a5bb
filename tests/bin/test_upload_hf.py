"""What is uploaded: the unpacked model and a card that shows its results."""

import zipfile
from pathlib import Path

import yaml

from espnet2_avsr_llm.bin import upload_hf


def test_upload(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("meta.yaml", yaml.safe_dump({"yaml_files": {"asr_train_config": "exp/asr/config.yaml"}, "files": {}}))
        archive.writestr("exp/asr/config.yaml", "llm: hf\n")
        archive.writestr("exp/asr/RESULTS.md", "# RESULTS {with braces}\n")
    seen = {}

    class Api:
        def create_repo(self, repo_id, exist_ok):
            seen["repo"] = (repo_id, exist_ok)

        def upload_folder(self, repo_id, folder_path, commit_message):
            seen["files"] = {str(p.relative_to(folder_path)) for p in Path(folder_path).rglob("*") if p.is_file()}
            seen["card"] = (Path(folder_path) / "README.md").read_text()

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    upload_hf.main(["--packed_model", str(tmp_path / "m.zip"), "--hf_repo", "me/model"])
    assert seen["repo"] == ("me/model", True)
    assert seen["files"] == {"README.md", "meta.yaml", "exp/asr/config.yaml", "exp/asr/RESULTS.md"}
    assert 'from_pretrained("me/model")' in seen["card"]
    assert "# RESULTS {with braces}" in seen["card"] and "llm: hf" in seen["card"]
