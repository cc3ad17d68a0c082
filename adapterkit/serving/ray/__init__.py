"""Past one machine: replicas of a server on Ray Serve, and requests for an adapter at one that holds it."""

from .building import app, build
from .deploying import deploy, stop
from .options import RayOptions

__all__ = ["RayOptions", "app", "build", "deploy", "stop"]
