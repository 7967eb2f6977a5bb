"""ESPnet's trainer with checkpoints that survive a kill, execute nothing when read, and average right.

The steps (``train_one_epoch``, ``validate_one_epoch``) are ESPnet's own; only the loop over epochs and its files are here.
ESPnet 202511 writes checkpoints in place, reads them by unrestricted unpickling, and computes wrong averages after the first.
"""

from __future__ import annotations

import datetime
import itertools
import logging
import time
from pathlib import Path
from typing import Any, Mapping

import torch

from espnet2_avsr_llm import checkpoint
from espnet2_avsr_llm.compat import AbsEpochStepScheduler, AbsValEpochStepScheduler, Reporter, Trainer, set_all_random_seed
from espnet2_avsr_llm.scheduler import WarmupCosine

RESUME_FILE = "checkpoint.pth"


class AVSRLLMTrainer(Trainer):
    """Loop over epochs: train, validate, report, save, stop early, average."""

    @classmethod
    def build_options(cls, args):
        """ESPnet's options; ``keep_nbest_models`` becomes a list, as ESPnet's own trainer makes one of it.

        Raises:
            ValueError: many GPUs are asked for, but one process.
        """
        if args.ngpu > 1 and not args.distributed:
            raise ValueError(f"--ngpu {args.ngpu} needs --multiprocessing_distributed true")
        options = super().build_options(args)
        keep = options.keep_nbest_models
        options.keep_nbest_models = [keep] if isinstance(keep, int) else keep or [1]
        return options

    @classmethod
    def run(
        cls,
        model,
        optimizers,
        schedulers,
        train_iter_factory,
        valid_iter_factory,
        plot_attention_iter_factory,
        trainer_options,
        distributed_option,
    ) -> None:
        """Train from the last complete epoch to ``max_epoch``; arguments as of ESPnet's trainer."""
        options, output_dir = trainer_options, Path(trainer_options.output_dir)
        reporter = Reporter()
        scaler = torch.amp.GradScaler("cuda") if options.use_amp else None
        parts = dict(model=model, reporter=reporter, optimizers=optimizers, schedulers=schedulers, scaler=scaler)
        if options.resume and (output_dir / RESUME_FILE).exists():
            cls.resume(output_dir / RESUME_FILE, **parts)
        _set_totals(schedulers, train_iter_factory, options)  # after resuming: max_epoch may have been raised
        main = not distributed_option.distributed or distributed_option.dist_rank == 0
        writers = _tensorboard(output_dir) if options.use_tensorboard and main else (None, None)
        step_args = dict(model=_distributed(model, options, distributed_option), options=options, distributed_option=distributed_option)
        start, began = reporter.get_epoch() + 1, time.perf_counter()
        for epoch in range(start, options.max_epoch + 1):
            _announce(epoch, start, options.max_epoch, time.perf_counter() - began)
            set_all_random_seed(options.seed + epoch)
            reporter.set_epoch(epoch)
            with reporter.observe("train") as sub_reporter:
                no_update = cls.train_one_epoch(
                    iterator=NamedSteps(train_iter_factory.build_iter(epoch), epoch, options),
                    optimizers=optimizers,
                    schedulers=schedulers,
                    scaler=scaler,
                    reporter=sub_reporter,
                    summary_writer=writers[0],
                    **step_args,
                )
            if no_update:
                raise RuntimeError(f"Epoch {epoch} made no update: every gradient was non-finite, or accum_grad exceeds its batches")
            with reporter.observe("valid") as sub_reporter:
                cls.validate_one_epoch(iterator=valid_iter_factory.build_iter(epoch), reporter=sub_reporter, **step_args)
            _step_epoch(schedulers, reporter, options)
            if main:
                _report(reporter, writers, options, output_dir)
                _save(output_dir, epoch, options, **parts)
            patience = options.patience
            if patience is not None and reporter.check_early_stopping(patience, *options.early_stopping_criterion):
                break
        if main:
            _average(output_dir, reporter, options)

    @staticmethod
    def resume(checkpoint_file, model, reporter, optimizers, schedulers, scaler=None, **_) -> None:
        """Restore every part from the resume file, without executing anything in it."""
        states = checkpoint.load(checkpoint_file, map_location=next(model.parameters()).device)
        model.load_state_dict(states["model"])
        reporter.load_state_dict(_restored(states["reporter"]))
        for part, state in zip([*optimizers, *schedulers, scaler], [*states["optimizers"], *states["schedulers"], states["scaler"]]):
            if part is not None:
                part.load_state_dict(state)
        logging.info(f"The training was resumed using {checkpoint_file}")


class NamedSteps:
    """The batches of an epoch, each told its step: (seed, number of the update that it is part of).

    Those of whole updates only: after ``accum_grad`` times as many, up to ``accum_grad`` - 1 are left (others in each epoch, as their
    order is drawn anew). ESPnet would add their gradients to the next epoch's first update, of which a resume knows nothing.
    """

    def __init__(self, batches, epoch: int, options):
        self._batches, self._accum_grad = batches, options.accum_grad
        self._updates = len(batches) // options.accum_grad
        self._seed, self._first = options.seed, (epoch - 1) * self._updates

    def __len__(self) -> int:
        return self._updates * self._accum_grad

    def __iter__(self):
        for i, (utts, batch) in enumerate(itertools.islice(self._batches, len(self))):
            yield utts, {**batch, "step": (self._seed, self._first + i // self._accum_grad)}


def _set_totals(schedulers, train_iter_factory, options) -> None:
    updates = len(train_iter_factory.build_iter(1)) // options.accum_grad * options.max_epoch
    for scheduler in schedulers:
        if isinstance(scheduler, WarmupCosine):
            scheduler.set_total(updates)


def _step_epoch(schedulers, reporter: Reporter, options) -> None:
    for scheduler in schedulers:
        if isinstance(scheduler, AbsValEpochStepScheduler):
            scheduler.step(reporter.get_value(*options.val_scheduler_criterion))
        elif isinstance(scheduler, AbsEpochStepScheduler):
            scheduler.step()


def _distributed(model, options, distributed_option):
    """The model, or its DDP wrapper. Parameters that a step leaves unused are found by DDP itself (``unused_parameters``)."""
    if not distributed_option.distributed:
        return model
    devices = [torch.cuda.current_device()] if options.ngpu > 0 else None
    return torch.nn.parallel.DistributedDataParallel(
        model,
        device_ids=devices,
        find_unused_parameters=options.unused_parameters,
        gradient_as_bucket_view=options.gradient_as_bucket_view,
    )


def _tensorboard(output_dir: Path):
    from torch.utils.tensorboard import SummaryWriter

    return tuple(SummaryWriter(str(output_dir / "tensorboard" / phase)) for phase in ("train", "valid"))


def _announce(epoch: int, start: int, last: int, elapsed: float) -> None:
    left = f". Estimated time to finish: {elapsed / (epoch - start) * (last - epoch + 1):.0f} s" if epoch > start else ""
    logging.info(f"{epoch}/{last}epoch started{left}")


def _report(reporter: Reporter, writers, options, output_dir: Path) -> None:
    logging.info(reporter.log_message())
    if options.use_matplotlib:
        reporter.matplotlib_plot(output_dir / "images")
    for writer, phase in zip(writers, ("train", "valid")):
        if writer is not None:
            reporter.tensorboard_add_scalar(writer, key1=phase)
    if options.use_wandb:
        reporter.wandb_log()


def _save(output_dir: Path, epoch: int, options, model, reporter, optimizers, schedulers, scaler) -> None:
    """The epoch's model, then the resume file, then links; models that are neither latest nor among the n best go."""
    states = model.state_dict()
    checkpoint.save(states, output_dir / f"{epoch}epoch.pth")
    resume = {
        "model": states,
        "reporter": _plain(reporter.state_dict()),
        "optimizers": [o.state_dict() for o in optimizers],
        "schedulers": [s.state_dict() if s is not None else None for s in schedulers],
        "scaler": scaler.state_dict() if scaler is not None else None,
    }
    checkpoint.save(resume, output_dir / RESUME_FILE)
    _link(output_dir / "latest.pth", f"{epoch}epoch.pth")
    keep = {epoch}
    for phase, key, mode in _criteria(reporter, options):
        best = reporter.sort_epochs(phase, key, mode)
        _link(output_dir / f"{phase}.{key}.best.pth", f"{best[0]}epoch.pth")
        keep |= set(best[: max(options.keep_nbest_models)])
    for old in range(1, epoch):
        if old not in keep:
            (output_dir / f"{old}epoch.pth").unlink(missing_ok=True)


def _average(output_dir: Path, reporter: Reporter, options) -> None:
    """``PHASE.KEY.ave_Nbest.pth`` for each criterion and N, and ``PHASE.KEY.ave.pth`` for the largest N.

    Of the epochs that are still there: a resumed run may ask for more than the one before kept.
    """
    for phase, key, mode in _criteria(reporter, options):
        epochs = [e for e in reporter.sort_epochs(phase, key, mode) if (output_dir / f"{e}epoch.pth").exists()]
        for n in sorted({min(n, len(epochs)) for n in options.keep_nbest_models}):
            name = f"{phase}.{key}.ave_{n}best.pth"
            checkpoint.save(checkpoint.average(output_dir / f"{e}epoch.pth" for e in epochs[:n]), output_dir / name)
            _link(output_dir / f"{phase}.{key}.ave.pth", name)


def _criteria(reporter: Reporter, options) -> list[tuple[str, str, str]]:
    return [tuple(c) for c in options.best_model_criterion if reporter.has(c[0], c[1])]


def _link(link: Path, target: str) -> None:
    temporary = link.with_name(f".{link.name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def _plain(value: Any) -> Any:
    """The reporter's state in types that ``weights_only`` reading accepts: times become seconds, numpy numbers floats."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, datetime.timedelta):
        return {"seconds": value.total_seconds()}
    return value.item() if hasattr(value, "item") else value


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return datetime.timedelta(seconds=value["seconds"]) if value.keys() == {"seconds"} else {k: _restored(v) for k, v in value.items()}
    return value
