"""Train a model: ESPnet's own training program for this task."""

from __future__ import annotations


def get_parser():
    """ESPnet's parser with the task's options."""
    from espnet2_avsr_llm.task import AVSRLLMTask

    return AVSRLLMTask.get_parser()


def main(argv: list[str] | None = None) -> None:
    """Parse options and train."""
    import torch

    from espnet2_avsr_llm.task import AVSRLLMTask

    try:
        AVSRLLMTask.main(cmd=argv)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
