"""Who reviews the training data, and who audits the result: findings about rows, and what an adapter has memorised of them."""

from .canaries import Canary, plant_canaries, read_canaries, write_canaries
from .findings import Audit, Finding
from .html import audit_page, audit_section
from .options import AuditOptions
from .run import audit

__all__ = [
    "Audit",
    "AuditOptions",
    "Canary",
    "Finding",
    "audit",
    "audit_page",
    "audit_section",
    "plant_canaries",
    "read_canaries",
    "write_canaries",
]
