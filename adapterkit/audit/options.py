"""What an audit may be told."""

from __future__ import annotations

import attrs
from attrs.validators import and_, ge, gt, le, lt

__all__ = ["AuditOptions"]


@attrs.frozen(kw_only=True)
class AuditOptions:
    """How to audit."""

    near_duplicates: float = attrs.field(default=0.8, validator=and_(gt(0.0), le(1.0)))
    """How alike texts must be to be near duplicates: the Jaccard similarity of their runs of five letters, 1 being the same."""
    near_rows: int = attrs.field(default=500_000, validator=ge(1))
    """Look for near duplicates among so many rows, drawn with `seed` where there are more: each takes about 6 KB of memory."""
    phone_regions: tuple[str, ...] = ("US", "GB", "DE", "FR", "IN")
    """Countries whose phone numbers are found without a country code, by ISO 3166 letters."""
    max_length: int = attrs.field(default=1024, validator=ge(2))
    """Longer rows are cut, as training would with this `max_length`; needs a base."""
    examples: int = attrs.field(default=5, validator=ge(0))
    """So many examples of each finding."""
    memory_rows: int = attrs.field(default=100, validator=ge(1))
    """So many rows, drawn with `seed`, are asked of an adapter to see whether it repeats them."""
    memory_tokens: int = attrs.field(default=50, validator=ge(1))
    """An answer counts as repeated when so many tokens from its beginning, or all of a shorter one, come word for word."""
    alternatives: int = attrs.field(default=255, validator=and_(ge(1), le(2**20)))
    """So many random secrets that were not planted are compared with each that was."""
    batch_size: int = attrs.field(default=64, validator=ge(1))
    """Rows in one batch, where the base is asked."""
    seed: int = attrs.field(default=42, validator=and_(ge(0), lt(2**63)))
    """Governs what is drawn at random."""
