"""What plugins provide and receive, as frozen records. Nothing here imports torch."""

from .data import Conversation, DataFormat, Message, Record, Text
from .method import LayerMethod, Method
from .objective import Example, Loss, Metric, Objective
from .training import Run, TrainOptions

__all__ = [
    "Conversation",
    "DataFormat",
    "Example",
    "LayerMethod",
    "Loss",
    "Message",
    "Method",
    "Metric",
    "Objective",
    "Record",
    "Run",
    "Text",
    "TrainOptions",
]
