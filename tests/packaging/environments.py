"""Environments of their own: what is installed there is found through its own metadata, as on anybody's machine."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import attrs
import torch

SHARED = Path(torch.__file__).parents[1]
"""Where torch and the like are: an environment sees them there instead of downloading them."""


@attrs.frozen
class Environment:
    """A virtual environment, without adapterkit until it is installed there."""

    folder: Path

    @classmethod
    def make(cls, folder):
        venv.create(folder, symlinks=os.name != "nt")
        made = cls(folder)
        # a line of a .pth file adds the folder, but not what .pth files in it would add: no editable install is seen
        (Path(made.path("purelib")) / "shared.pth").write_text(f"{SHARED}\n")
        return made

    def path(self, name):
        """One of this environment's folders, such as ``"scripts"``."""
        return sysconfig.get_path(name, "venv", {"base": str(self.folder), "platbase": str(self.folder)})

    def install(self, *projects):
        """Build and install the distributions in some folders; what they depend on must be there."""
        options = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
        python = Path(self.path("scripts")) / "python"
        command = [sys.executable, "-m", "pip", "--python", python, "install", *options, *projects]
        done = self._run(command)
        assert done.returncode == 0, done.stderr

    def run(self, command, *arguments, **options):
        """A command of this environment, such as ``adapterkit``; it knows nothing of the repository."""
        return self._run([Path(self.path("scripts")) / command, *arguments], **options)

    def _run(self, command, **options):
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ADAPTERKIT_"))}
        where = {"cwd": self.folder, "env": {**environ, "OMP_NUM_THREADS": "1"}, **options}
        return subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=False, timeout=500, **where
        )
