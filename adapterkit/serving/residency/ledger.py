"""The account of adapters in memory: who holds what, who waits for what, and what goes for it. No threads, no loads."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from adapterkit.errors import ConfigError, EngineError

from .claims import Claim
from .tiers import Held, Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from adapterkit.adapter import Adapter
    from adapterkit.resident import Resident
    from adapterkit.serving.watching import Watcher

__all__ = ["Ledger"]


class Ledger:
    """What is in memory, within budgets; its owner holds a lock around each call, and does afterwards what it says.

    Args:
        device_bytes: What adapters may take where the base computes.
        host_bytes: What they may take on the host, beside that.
        watcher: Who is to be told.

    Attributes:
        to_fetch: Adapters to be fetched: what they take is not known yet.
        to_place: Adapters to be made ready, for which there is room; with what was fetched of them, where that is in memory.
        news: What the watcher is to be told.
    """

    def __init__(self, device_bytes: int, host_bytes: int, watcher: Watcher) -> None:
        self.to_fetch: list[str] = []
        self.to_place: list[tuple[str, Adapter | None]] = []
        self.news: list[Callable[[], None]] = []
        self._watcher = watcher
        self._device: Tier[Resident] = Tier("device", device_bytes)
        self._host: Tier[Adapter] = Tier("host", host_bytes)
        self._users: Counter[str] = Counter()
        self._pinned: set[str] = set()
        self._dropped: set[str] = set()
        self._sizes: dict[str, int] = {}
        """What adapters take on the device: measured, or while one was never there, what it will likely take."""
        self._errors: dict[str, BaseException] = {}
        self._fetching: set[str] = set()
        self._claims: dict[tuple[str, ...], Claim] = {}
        self._is_blocked = False
        """Whether the first who waits finds no room: then those behind wait too, so that nobody waits for ever."""

    # -- who uses what

    def take(self, digests: tuple[str, ...]) -> tuple[Resident, ...] | None:
        """See :meth:`Residency.take`."""
        if all(digest in self._device for digest in digests):
            self._users.update(digests)
            self._forget(digests)
            return tuple(one for digest in digests if (one := self._device.get(digest)))
        for digest in digests:
            error = self._errors.pop(digest, None)
            if error is not None:
                raise error
        self._check_fits(digests)
        self._ask(digests, is_firm=True)
        return None

    def give(self, digests: Sequence[str]) -> None:
        """See :meth:`Residency.give`."""
        given = Counter(digests)
        lacking = given - self._users
        if lacking:
            raise EngineError(f"the adapter {min(lacking):.12} is given back, and nobody holds it")
        self._users -= given
        self.advance()

    def prefetch(self, digests: Sequence[str]) -> None:
        """See :meth:`Residency.prefetch`."""
        for digest in digests:
            if self._device.get(digest) is None and digest not in self._errors:
                self._ask((digest,), is_firm=False)

    def pin(self, digest: str) -> None:
        """Keep what is on the device there; see :meth:`Residency.pin`."""
        pinned = self._pinned | {digest}
        total, largest = sum(self._sizes[one] for one in pinned), max(self._sizes.values())
        if total + largest > self._device.budget:
            problem = (
                f"{len(pinned)} would take {total:,} of {self._device.budget:,} bytes, and the largest seen so far {largest:,}: "
                "there must be room for one that is not pinned; unpin another, or give more with adapter_memory"
            )
            raise ConfigError(f"the adapter {digest:.12} cannot be pinned", [problem])
        self._pinned.add(digest)
        self._dropped.discard(digest)

    def unpin(self, digest: str) -> None:
        """See :meth:`Residency.unpin`."""
        self._pinned.discard(digest)
        self.advance()

    def drop(self, digest: str) -> None:
        """See :meth:`Residency.drop`."""
        self._pinned.discard(digest)
        self._dropped.add(digest)
        self.advance()

    def held(self) -> list[Held]:
        """See :meth:`Residency.held`."""
        device = [Held(one, "device", size, one in self._pinned, self._users[one]) for one, size in self._device]
        return device + [Held(one, "host", size) for one, size in self._host]

    def clear(self) -> None:
        """Let everything go."""
        self._claims.clear()
        for tier in (self._device, self._host):
            self._evict(tier, [digest for digest, _ in tier])

    # -- what loads have brought

    def fetched(self, digest: str, adapter: Adapter, likely: int) -> None:
        """An adapter is in memory, and will likely take so many bytes on the device."""
        self._fetching.discard(digest)
        self._sizes.setdefault(digest, likely)
        self._renew(digest)
        self.advance({digest: adapter})
        self._end_ahead(digest)

    def keep_on_host(self, digest: str, adapter: Adapter, size: int, seconds: float) -> None:
        """Keep it there too, unless it is larger than all of the host's budget."""
        going = None if digest in self._host else self._host.room(size, ())
        if going is not None:
            self._evict(self._host, going)
            self._host.put(digest, adapter, size)
            self.news.append(partial(self._watcher.loaded, digest, "host", size, seconds))

    def placed(self, digest: str, resident: Resident, seconds: float) -> None:
        """An adapter is on the device, and can be taken; where it takes more than was thought, and there is no room, it is not."""
        self._device.release(digest)
        self._sizes[digest] = resident.bytes
        going = self._device.room(resident.bytes, self._kept())
        self._renew(digest)
        if going is None:
            self._take_back(digest)
        else:
            self._evict(self._device, going)
            self._device.put(digest, resident, resident.bytes)
            self._errors.pop(digest, None)
            self.news.append(partial(self._watcher.loaded, digest, "device", resident.bytes, seconds))
            self._end_ahead(digest)
        self.advance()

    def failed(self, digest: str, error: BaseException) -> None:
        """A load came to nothing: whoever asks for the adapter next is told so."""
        self._fetching.discard(digest)
        self._device.release(digest)
        for claim in self._claims_of(digest):
            del self._claims[claim.digests]
        self._errors[digest] = error
        self.news.append(partial(self._watcher.load_failed, digest, error))
        self.advance()

    # -- who waits

    @property
    def is_waiting(self) -> bool:
        """Whether somebody waits for what may be kept for one who does not come back: no event tells of that."""
        return self._is_blocked or bool(self._dropped and self._claims)

    def advance(self, at_hand: dict[str, Adapter] | None = None) -> None:
        """Look again at who waits, in their order, and at what was dropped; ``at_hand`` is in memory at this moment."""
        self._is_blocked = False
        for claim in list(self._claims.values()):
            if self._is_blocked:
                break
            if self._is_over(claim):
                del self._claims[claim.digests]
            elif not claim.is_granted:
                self._consider(claim, at_hand or {})
        for digest in [one for one in self._dropped if not self._is_wanted(one)]:
            self._dropped.discard(digest)
            self._errors.pop(digest, None)
            for tier in (self._device, self._host):
                self._evict(tier, [digest] if digest in tier else [])

    def _ask(self, digests: tuple[str, ...], *, is_firm: bool) -> None:
        is_new = digests not in self._claims
        claim = self._claims.setdefault(digests, Claim(digests, is_firm))
        claim.is_firm |= is_firm
        claim.renew()
        if is_new or not (claim.is_granted or self._is_blocked):
            self._consider(claim, {})

    def _end_ahead(self, digest: str) -> None:
        """What was only fetched ahead has come as far as it can."""
        claim = self._claims.get((digest,))
        if claim is not None and not claim.is_firm and not self._is_coming(digest):
            del self._claims[claim.digests]

    def _forget(self, digests: tuple[str, ...]) -> None:
        if self._claims.pop(digests, None) and self._is_blocked:
            self.advance()

    def _check_fits(self, digests: tuple[str, ...]) -> None:
        needed = sum(self._sizes.get(digest, 0) for digest in set(digests))
        pinned = sum(self._sizes[digest] for digest in self._pinned.difference(digests))
        if needed + pinned > self._device.budget:
            self._forget(digests)
            what = f"the adapter {digests[0]:.12} takes" if len(digests) == 1 else f"{len(digests)} adapters take"
            beside = f", {pinned:,} of which are for those that are pinned" if pinned else ""
            raise EngineError(
                f"{what} {needed:,} bytes where the base computes, and all together may take {self._device.budget:,}{beside}; give "
                "more with adapter_memory"
            )

    def _consider(self, claim: Claim, at_hand: dict[str, Adapter]) -> None:
        """Give a claim room for all that it lacks, if it is its turn; what each takes has to be known for that."""
        missing = [digest for digest in dict.fromkeys(claim.digests) if digest not in self._device]
        unknown = [digest for digest in missing if digest not in self._sizes]
        if unknown:
            self.to_fetch += [digest for digest in unknown if digest not in self._fetching]
            self._fetching.update(unknown)
            return
        missing = [digest for digest in missing if not self._device.is_reserved(digest)]
        needed = sum(self._sizes[digest] for digest in missing)
        going = None if self._is_blocked else self._device.room(needed, self._kept(claim))
        if going is not None:
            claim.is_granted = True
            self._evict(self._device, going)
            for digest in missing:
                self._device.reserve(digest, self._sizes[digest])
                self.to_place.append((digest, at_hand.get(digest) or self._host.get(digest)))
        elif claim.is_firm:
            self._is_blocked = True
        else:
            del self._claims[claim.digests]

    def _is_over(self, claim: Claim) -> bool:
        return claim.is_over and not any(map(self._is_coming, claim.digests))

    def _is_coming(self, digest: str) -> bool:
        return digest in self._fetching or self._device.is_reserved(digest)

    def _is_wanted(self, digest: str) -> bool:
        return self._is_coming(digest) or digest in self._users or any(digest in one for one in self._claims)

    def _kept(self, claim: Claim | None = None) -> set[str]:
        """What must not go from the device now."""
        granted = [one for one in self._claims.values() if one.is_granted and one.is_firm and not self._is_over(one)]
        kept = {digest for one in granted for digest in one.digests}
        return kept.union(self._users, self._pinned, claim.digests if claim else ())

    def _evict(self, tier: Tier[Any], digests: Sequence[str]) -> None:
        for digest in digests:
            size = tier.pop(digest)
            self.news.append(partial(self._watcher.evicted, digest, tier.name, size))
            if tier is self._device:
                self._host.get(digest)  # it was in use until now
                self._take_back(digest)

    def _claims_of(self, digest: str) -> list[Claim]:
        return [claim for claim in self._claims.values() if digest in claim.digests]

    def _renew(self, digest: str) -> None:
        for claim in self._claims_of(digest):
            claim.renew()

    def _take_back(self, digest: str) -> None:
        for claim in self._claims_of(digest):
            claim.is_granted = False
