"""Calls of the Hub's client: held to a guard, tried again where that may help, and their errors without a token."""

from __future__ import annotations

import contextlib
import errno
import re
import sys
import time
from typing import TYPE_CHECKING, TypeVar

from huggingface_hub import get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from adapterkit import ConflictError, RemoteError

from .guard import READING, guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .guard import Guard

__all__ = ["printable", "trying"]

T = TypeVar("T")
TRIES = 4
LONGEST_WAIT = 60.0
"""Seconds: who is asked to wait for longer is told so instead."""
TOKEN = re.compile(r"\bhf_[A-Za-z0-9_]{8,}")
SECONDS = re.compile(r"^([0-9]{1,9})$|\bt=([0-9]{1,9})\b", re.ASCII)
"""As Retry-After has them, or the Hub's RateLimit."""
BUSY = {408, 429, 500, 502, 503, 504}
STALE = {409, 412}
NOT_FOUND = (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError)
NETWORK: tuple[type[BaseException], ...] = (OSError, RuntimeError, HfHubHTTPError.__bases__[0])
"""What comes through the client as it is, and may go better: of the disk, of Xet, and of its HTTP library, whichever that is."""


def trying(
    url: str,
    call: Callable[[], T],
    *,
    guard: Guard = READING,
    expected: tuple[type[Exception], ...] = (),
    tries: int = TRIES,
) -> T:
    """What ``call`` returns; where the server is busy or away, it is called again after a while.

    Args:
        url: What the place is called in errors.
        call: What to do.
        guard: What the client may do meanwhile.
        expected: Errors of the client that are the caller's to understand.
        tries: How often at most.

    Raises:
        ConflictError: What is asked for does not go with what is there.
        RemoteError: Any other refusal, whatever the network does, and answers that make no sense.
    """
    for tried in range(1, tries + 1):
        try:
            with _calling(url, expected), guarded(guard):
                return call()
        except RemoteError as error:
            pause = _pause(error.__cause__, tried)
            if tried == tries or pause is None:
                raise
            time.sleep(pause)
    raise AssertionError  # the last try has returned or raised


@contextlib.contextmanager
def _calling(url: str, expected: tuple[type[Exception], ...]) -> Iterator[None]:
    """Turn the client's errors into ours, but for those that the caller expects."""
    was_quiet = are_progress_bars_disabled()
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    except GatedRepoError as error:  # to the client a kind of repository that is not there
        raise _ours(url, error) from _quiet(error)
    except expected:
        raise
    except (ConflictError, RemoteError) as error:
        said = _clean(str(error))
        raise type(error)(said if url in said else f"{url}: {said}") from None
    except Exception as error:  # noqa: BLE001 - what a server lies about may make the client raise anything
        raise _ours(url, error) from _quiet(error)
    finally:
        if not was_quiet:
            enable_progress_bars()


def _ours(url: str, error: Exception) -> RemoteError | ConflictError:
    if isinstance(error, GatedRepoError):
        return RemoteError(f"{url} is gated: ask for access on its page, then set HF_TOKEN")
    if isinstance(error, NOT_FOUND):
        return RemoteError(f"{url} has not, or not any more, what is asked for: {_said(error)}")
    if isinstance(error, HfHubHTTPError):
        return _explained(url, error)
    what = f"{type(error).__name__}: {_clean(str(error))}"
    if isinstance(error, NETWORK):
        return RemoteError(f"{url} cannot be reached: {what}")
    return RemoteError(f"{url}: the client can make nothing of it: {what}")


def _explained(url: str, error: HfHubHTTPError) -> RemoteError | ConflictError:
    status, said = error.response.status_code, _said(error)
    if status in STALE:
        return ConflictError(f"{url} was changed by somebody else meanwhile, and is as they left it: {said}")
    if status in (401, 403):
        return RemoteError(f"{url} does not let you: {said}; is HF_TOKEN set, and may it write there?")
    if status == 429:
        return RemoteError(f"{url} asks for fewer requests: {said}; try again later")
    return RemoteError(f"{url} answered with status {status}: {said}")


def _said(error: Exception) -> str:
    return _clean(str(getattr(error, "server_message", None) or str(error).partition("\n")[0]))


def _pause(error: BaseException | None, tried: int) -> float | None:
    """How many seconds to wait before another try; None where none would help."""
    wait = 0.5 * 2**tried
    if isinstance(error, HfHubHTTPError):
        if error.response.status_code not in BUSY:
            return None
        headers = error.response.headers
        said = str(headers.get("Retry-After") or headers.get("RateLimit") or "")
        asked = SECONDS.search(said)
        wait = float(asked[1] or asked[2]) if asked else wait
    stays = isinstance(error, OfflineModeIsEnabled) or getattr(error, "errno", None) == errno.ENOSPC
    return wait if wait <= LONGEST_WAIT and isinstance(error, NETWORK) and not stays else None


def _quiet(error: BaseException) -> BaseException:
    """The error as a cause, with its token out of whatever a traceback would show."""
    error.args = tuple(_clean(one) if isinstance(one, str) else one for one in error.args)
    error.__cause__, error.__context__ = None, None
    return error


def printable(text: object) -> str:
    """What a stranger's text shows on a terminal: itself, and nothing that the terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in str(text))


def _clean(text: str) -> str:
    token = get_token()
    text = text.replace(token, "<token>") if token else text
    return printable(" ".join(TOKEN.sub("<token>", text).split()))[:500]
