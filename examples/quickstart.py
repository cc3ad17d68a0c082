"""Two adapters for one small base, on real data, in a few minutes on two CPU cores: train, swap, mix, save, reload."""

from pathlib import Path

from adapterkit import Base

HERE = Path(__file__).parent
DATA = HERE / "data"

base = Base(HERE / "base")
print(base.generate("How do I locate my card?"))  # the base alone knows neither task
print("so far nothing is trained")
