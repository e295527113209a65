"""Which heads promise what: the laws run on those that do."""

import torch

from lamella.mil.heads import HEADS
from lamella.mil.settings import HEAD_NAMES, TrainSettings
from lamella.mil.written import is_written_out

with torch.device("meta"):  # no weights, and nothing drawn
    _MADE = {name: HEADS[name](4, 2, 0.0) for name in HEAD_NAMES}

ANY_ORDER = tuple(name for name, head in _MADE.items() if head.pool.any_order)
ADDING_UP = tuple(name for name, head in _MADE.items() if head.pool.adds_up)
WRITTEN_OUT = tuple(name for name in HEAD_NAMES if is_written_out(TrainSettings(head=name)))
