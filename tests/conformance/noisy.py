"""A plugin whose import changes something of the whole process."""

import random

from adapterkit import hookimpl
from tests.conformance.seeded import method

random.seed(0)


@hookimpl
def adapterkit_methods():
    yield method("noisy")
