"""What plugins provide and receive, as frozen records. Nothing here imports torch."""

from .data import Conversation, DataFormat, Message, Preference, Record, Text
from .exporting import Exporter
from .logging import Logger, Sink
from .merging import MergeStrategy
from .method import Method, Traits
from .objective import Encoder, Example, Forward, Loss, Metric, Objective
from .remote import Remote, Repository, Revision
from .training import Run, TrainOptions

__all__ = [
    "Conversation",
    "DataFormat",
    "Encoder",
    "Example",
    "Exporter",
    "Forward",
    "Logger",
    "Loss",
    "MergeStrategy",
    "Message",
    "Method",
    "Metric",
    "Objective",
    "Preference",
    "Record",
    "Remote",
    "Repository",
    "Revision",
    "Run",
    "Sink",
    "Text",
    "TrainOptions",
    "Traits",
]
