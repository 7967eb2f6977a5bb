"""Upload a packed model to the Hugging Face hub, with a model card."""

import argparse
import logging
import tempfile
import zipfile
from pathlib import Path
from typing import Optional, Sequence

CARD = """---
tags:
- espnet
- audio
- audio-visual-speech-recognition
- automatic-speech-recognition
library_name: espnet
---

# {repo}

Trained with espnet2_avsr_llm, a plugin of [ESPnet2](https://github.com/espnet/espnet).

```python
from espnet2_avsr_llm.bin.avsr_llm_inference import Speech2Text

speech2text = Speech2Text.from_pretrained("{repo}")
```

{results}
<details><summary>Training configuration</summary>

```yaml
{config}```

</details>
"""


def get_parser() -> argparse.ArgumentParser:
    """Options of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packed_model", type=Path, required=True, help="archive of `avsr-llm pack`")
    parser.add_argument("--hf_repo", required=True, help="USER/NAME; made if absent. The token is that of `hf auth login` or HF_TOKEN")
    return parser


def write_card(folder: Path, repo: str) -> None:
    """Write README.md for an unpacked model: how to load it, its RESULTS.md and its configuration."""
    import yaml

    meta = yaml.safe_load((folder / "meta.yaml").read_text(encoding="utf-8"))
    config = (folder / meta["yaml_files"]["asr_train_config"]).read_text(encoding="utf-8")
    results = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("exp/*/RESULTS.md")))
    (folder / "README.md").write_text(CARD.format(repo=repo, results=results, config=config), encoding="utf-8")


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Unpack, write the card, upload."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    from huggingface_hub import HfApi

    api = HfApi()
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(args.packed_model) as archive:
            archive.extractall(folder)
        write_card(Path(folder), args.hf_repo)
        api.create_repo(args.hf_repo, exist_ok=True)
        api.upload_folder(repo_id=args.hf_repo, folder_path=folder, commit_message="Upload model of espnet2_avsr_llm")
    logging.info("uploaded to https://huggingface.co/%s", args.hf_repo)


if __name__ == "__main__":
    main()
