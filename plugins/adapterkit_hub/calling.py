"""Calls of the Hub's client: tried again where that may help, and their errors without a token."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from typing import TYPE_CHECKING, TypeVar

from huggingface_hub import get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from adapterkit import ConflictError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["calling", "endpoint", "trying"]

T = TypeVar("T")
TRIES = 4
LONGEST_WAIT = 60.0
"""Seconds: who is asked to wait for longer is told so instead."""
TOKEN = re.compile(r"\bhf_[A-Za-z0-9_]{8,}")
BUSY = {408, 429, 500, 502, 503, 504}
STALE = {409, 412}
NETWORK: tuple[type[BaseException], ...] = (OSError, RuntimeError, ValueError, HfHubHTTPError.__bases__[0])
"""What comes through the client as it is: of the disk, of Xet, of what it read, and of its HTTP library, whichever that is."""


def endpoint() -> str:
    """Where the Hub is: ``HF_ENDPOINT``, else the public one."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def trying(url: str, call: Callable[[], T]) -> T:
    """What ``call`` returns; where the server is busy or away, it is called again after a while.

    Raises:
        RemoteError, ConflictError: As :func:`calling`.
    """
    for left in reversed(range(TRIES)):
        try:
            with calling(url):
                return call()
        except RemoteError as error:
            pause = _pause(error.__cause__, TRIES - left)
            if not left or pause is None:
                raise
            time.sleep(pause)
    raise AssertionError  # the last try has returned or raised


@contextlib.contextmanager
def calling(url: str) -> Iterator[None]:
    """Turn the client's errors into ours; what is not found stays what it is, for the caller to say what that means.

    Raises:
        ConflictError: The parent is not the newest commit any more.
        RemoteError: Any other refusal, and whatever the network does.
    """
    was_quiet = are_progress_bars_disabled()
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    except GatedRepoError as error:
        raise RemoteError(f"{url} is gated: ask for access on its page, then set HF_TOKEN") from _quiet(error)
    except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except HfHubHTTPError as error:
        raise _explained(url, error) from _quiet(error)
    except HFValidationError as error:
        raise RemoteError(f"{url} is no repository of the Hub: {_clean(str(error))}") from None
    except (ConflictError, RemoteError):
        raise
    except NETWORK as error:
        raise RemoteError(f"{url} cannot be reached: {type(error).__name__}: {_clean(str(error))}") from _quiet(error)
    finally:
        if not was_quiet:
            enable_progress_bars()


def _explained(url: str, error: HfHubHTTPError) -> RemoteError | ConflictError:
    status = getattr(error.response, "status_code", None)
    said = _clean(str(error.server_message or "") or str(error).partition("\n")[0])
    if status in STALE:
        return ConflictError(f"{url} was changed by somebody else meanwhile, and is as they left it: {said}")
    if status in (401, 403):
        return RemoteError(f"{url} does not let you: {said}; is HF_TOKEN set, and may it write there?")
    if status == 429:
        return RemoteError(f"{url} asks for fewer requests: {said}; try again later")
    return RemoteError(f"{url} answered with status {status}: {said}")


def _pause(error: BaseException | None, tried: int) -> float | None:
    """How many seconds to wait before another try; None where none would help."""
    wait = 0.5 * 2**tried
    if isinstance(error, HfHubHTTPError):
        if error.response.status_code not in BUSY:
            return None
        asked = str(error.response.headers.get("Retry-After", ""))
        wait = float(asked) if asked.isdigit() else wait
    return wait if wait <= LONGEST_WAIT and isinstance(error, NETWORK) and not isinstance(error, ValueError) else None


def _quiet(error: BaseException) -> BaseException:
    """The error as a cause, with its token out of whatever a traceback would show."""
    error.args = tuple(_clean(one) if isinstance(one, str) else one for one in error.args)
    error.__cause__, error.__context__ = None, None
    return error


def _clean(text: str) -> str:
    token = get_token()
    text = text.replace(token, "<token>") if token else text
    return " ".join(TOKEN.sub("<token>", text).split())[:500]
