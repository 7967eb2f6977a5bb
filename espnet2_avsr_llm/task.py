"""The ESPnet task: options, data, batches and model of ``avsr-llm``."""

from __future__ import annotations

import argparse
import itertools
import logging
import os

import torch

from espnet2_avsr_llm.build import OPTIONAL, PARTS, build, outline
from espnet2_avsr_llm.compat import AbsTask, ClassChoices, NestedDictAction, scheduler_classes
from espnet2_avsr_llm.data.batching import read_lengths, token_batches
from espnet2_avsr_llm.data.collate import collate
from espnet2_avsr_llm.data.dataset import AVDataset, EpochIterFactory, register_data_types
from espnet2_avsr_llm.data.preprocess import Augmentation, Preprocessor
from espnet2_avsr_llm.espnet_model import ESPnetAVSRLLMModel
from espnet2_avsr_llm.llm.tokens import tokens_of
from espnet2_avsr_llm.loss import LOSSES
from espnet2_avsr_llm.registry import construct
from espnet2_avsr_llm.scheduler import WarmupCosine
from espnet2_avsr_llm.trainer import AVSRLLMTrainer

register_data_types()
scheduler_classes.setdefault("warmup_cosine", WarmupCosine)

DEFAULTS = dict(
    num_att_plot=0,  # ESPnet would call attention plots that an LLM does not have
    cudnn_deterministic=False,
    best_model_criterion=[("valid", "acc", "max")],
    keep_nbest_models=[1],
    unused_parameters=True,  # a step may leave parameters unused (a batch without video): DDP must not wait for them
    optim="adamw",
    grad_clip=10.0,
)

# Options of ESPnet that nothing here reads, by why.
UNREAD = {
    "adapters are chosen by --adapter": ("use_adapter",),
    "checkpoints hold what is trained, and are averaged at the end": ("save_strategy", "nbest_averaging_interval", "wandb_model_log_interval"),
    "many GPUs run on DDP": ("sharded_ddp", "ddp_comm_hook"),
    "an LLM gives no attention plots": ("num_att_plot",),
    "each part has a dtype of its own (--llm_conf dtype=...)": ("train_dtype",),
    "a batch is --batch_bins LLM tokens and at most --batch_frames frames": (
        *("batch_type", "valid_batch_type", "batch_size", "valid_batch_size", "min_batch_size", "fold_length"),
        *("sort_in_batch", "sort_batch", "shuffle_within_batch", "drop_last_iter"),
    ),
    "files are read one by one, as they are needed": ("max_cache_size", "valid_max_cache_size", "multi_task_dataset", "allow_multi_rates"),
}


class AVSRLLMTask(AbsTask):
    """``python -m espnet2_avsr_llm.bin.avsr_llm_train``."""

    num_optimizers = 1
    trainer = AVSRLLMTrainer
    class_choices_list = [ClassChoices(name, dict(family), optional=name in OPTIONAL) for name, family in PARTS.items()]

    @classmethod
    def main_worker(cls, args: argparse.Namespace) -> None:
        """As of ESPnet, whose ``--init_param`` would unpickle its file without restriction.

        Raises:
            ValueError: an option is set that would be ignored.
        """
        parser = cls.get_parser()
        for why, names in UNREAD.items():
            for name in names:
                value, default = getattr(args, name, None), parser.get_default(name)
                if value != default:
                    raise ValueError(f"--{name} {value} is not supported, leave it at {default}: {why}")
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
        super().main_worker(args)

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """The parts, augmentation, and the cap on frames."""
        group = parser.add_argument_group("AVSR-LLM")
        group.conflict_handler = "resolve"  # --adapter is ours: ESPnet's takes loralib and s3prl only
        for choices in cls.class_choices_list:
            choices.add_arguments(group)
        group.add_argument("--losses", nargs="*", choices=list(LOSSES), default=[], help="terms beside the cross-entropy")
        group.add_argument("--losses_conf", action=NestedDictAction, default={}, help="their options: NAME.KEY=VALUE")
        group.add_argument("--augment_conf", action=NestedDictAction, default={}, help="training augmentation (data/preprocess.py)")
        group.add_argument("--batch_frames", type=int, default=None, help="25-fps encoder frames of a batch at most, padding included")
        parser.set_defaults(**DEFAULTS)

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> ESPnetAVSRLLMModel:
        """The model of a configuration."""
        model = build(vars(args), ESPnetAVSRLLMModel)
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        logging.info(f"Trainable parameters: {trainable:,} ({100 * trainable / sum(p.numel() for p in model.parameters()):.2f} %)")
        return model

    @classmethod
    def build_collate_fn(cls, args: argparse.Namespace, train: bool):
        """Padding with lengths."""
        return collate

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool) -> Preprocessor:
        """Crop, augmentation (training only), normalisation, token ids."""
        tokens = tokens_of(args.llm_conf)
        augmentation = construct({"augment_conf": Augmentation}, "augment_conf", args.augment_conf) if train else None
        return Preprocessor(tokens, augmentation, args.seed, any(f.filterbanks for f in outline(vars(args))))

    @classmethod
    def required_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """Names that every sample has."""
        return () if inference else ("text",)

    @classmethod
    def optional_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """Names that the configured frontends may read."""
        return ("speech", "video")

    @classmethod
    def build_dataset(cls, args, iter_options, keys_to_load=None) -> AVDataset:
        """ESPnet's data set, with uint8 video."""
        dataset = AVDataset(
            iter_options.data_path_and_name_and_type,
            float_dtype=args.train_dtype,
            preprocess=iter_options.preprocess_fn,
            max_cache_fd=iter_options.max_cache_fd,
            keys_to_load=keys_to_load,
        )
        cls.check_task_requirements(dataset, args.allow_variable_data_keys, train=iter_options.train)
        return dataset

    @classmethod
    def build_sequence_iter_factory(cls, args, iter_options, mode: str) -> EpochIterFactory:
        """Batches by LLM tokens; each rank takes every world_size-th utterance of a batch, so a budget is that of all ranks."""
        distributed = iter_options.distributed
        world, rank = (torch.distributed.get_world_size(), torch.distributed.get_rank()) if distributed else (1, 0)
        lengths = read_lengths(iter_options.shape_files[0])
        batches = token_batches(lengths, iter_options.batch_bins, args.batch_frames, min_size=world)
        logging.info(f"[{mode}] {len(lengths)} utterances in {len(batches)} batches of {min(map(len, batches))} to {max(map(len, batches))}")
        batches = [batch[rank::world] for batch in batches]
        return EpochIterFactory(
            dataset=cls.build_dataset(args, iter_options, set(itertools.chain(*batches))),
            batches=batches,
            seed=args.seed,
            num_iters_per_epoch=iter_options.num_iters_per_epoch,
            shuffle=iter_options.train,
            num_workers=args.num_workers,
            collate_fn=iter_options.collate_fn,
            pin_memory=args.ngpu > 0,
        )

    @classmethod
    def build_task_iter_factory(cls, args, iter_options, mode: str):
        """Same as the sequence iterator."""
        return cls.build_sequence_iter_factory(args, iter_options, mode)
