"""The one place that knows ESPnet versions: names that move between releases are imported here (written for 202511)."""

import warnings

# ESPnet 202511 still says torch.cuda.amp.autocast, once per epoch and phase; nothing a user could do about it.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"espnet2\.train\.trainer")

from espnet2.iterators.sequence_iter_factory import SequenceIterFactory
from espnet2.schedulers.abs_scheduler import AbsBatchStepScheduler, AbsEpochStepScheduler, AbsValEpochStepScheduler
from espnet2.tasks.abs_task import AbsTask, scheduler_classes
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.torch_utils.set_all_random_seed import set_all_random_seed
from espnet2.train import dataset as espnet_dataset
from espnet2.train import iterable_dataset as espnet_iterable_dataset
from espnet2.train.abs_espnet_model import AbsESPnetModel
from espnet2.train.class_choices import ClassChoices
from espnet2.train.dataset import ESPnetDataset
from espnet2.train.reporter import Reporter
from espnet2.train.trainer import Trainer
from espnet2.utils.nested_dict_action import NestedDictAction

__all__ = [
    "AbsBatchStepScheduler",
    "AbsESPnetModel",
    "AbsEpochStepScheduler",
    "AbsTask",
    "AbsValEpochStepScheduler",
    "ClassChoices",
    "ESPnetDataset",
    "NestedDictAction",
    "Reporter",
    "SequenceIterFactory",
    "Trainer",
    "espnet_dataset",
    "espnet_iterable_dataset",
    "force_gatherable",
    "scheduler_classes",
    "set_all_random_seed",
]
