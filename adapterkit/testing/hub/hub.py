"""The test Hub."""

from __future__ import annotations

import hmac
import secrets
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .accounts import admit
from .cas import Cas
from .faults import Faults
from .kinds import other_bytes
from .messages import HubError
from .repositories import Blobs, File, Repository, checked_path
from .routes import find
from .serving import Server
from .uploading import is_large

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .messages import Answer, Request, Seen
    from .repositories import Commit

__all__ = ["Hub"]

_PLACES = ("hub", "storage", "elsewhere")
_ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


class Hub:
    """A server on this machine that huggingface_hub takes for the Hub.

    Args:
        xet: Whether it has Xet storage; it has large file storage in any case, as the real one has.
        folder: Where Xet storage and the clients' caches lie; a temporary folder if not given.
        enforce_parent: Whether a commit whose pinned parent is not the newest one is refused, as the real Hub does; some others do
            not.
        port: The port; any that is free if 0.

    Attributes:
        token: The token that may write.
        read_token: A token that may read only.
        faults: What is to go wrong.
        requests: What was asked, in the order of the answers.
        repositories: All repositories by name.

    Example:
        with Hub() as hub:
            api = HfApi(endpoint=hub.url, token=hub.token)
    """

    def __init__(
        self, *, xet: bool = True, folder: str | Path | None = None, enforce_parent: bool = True, port: int = 0
    ) -> None:
        self.token, self.read_token = (f"hf_{secrets.token_hex(17)}" for _ in range(2))
        self.enforce_parent = enforce_parent
        self.faults = Faults()
        self.requests: list[Seen] = []
        self.repositories: dict[str, Repository] = {}
        self.blobs = Blobs()
        self.stopping = threading.Event()
        self.lock = threading.RLock()
        self._secret = secrets.token_bytes(16)
        self._temporary = tempfile.TemporaryDirectory(prefix="adapterkit-hub-") if folder is None else None
        self._folder = Path(self._temporary.name if self._temporary else folder or "").resolve()
        self.cas = Cas(self._folder / "xet") if xet else None
        self._servers = {place: Server(self, place, port if place == "hub" else 0) for place in _PLACES}

    def __enter__(self) -> Self:
        for server in self._servers.values():
            server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for server in self._servers.values():
            server.stop()
        if self._temporary:
            self._temporary.cleanup()

    def __repr__(self) -> str:
        return f"<Hub {self.url}>"  # without its tokens

    @property
    def url(self) -> str:
        """The address that takes the place of ``https://huggingface.co``."""
        return self._servers["hub"].url

    @property
    def storage_url(self) -> str:
        """The address of large files: another host to clients, as the real Hub's CDN is."""
        return self._servers["storage"].url

    @property
    def elsewhere_url(self) -> str:
        """The address of a host that does not belong to the Hub; only faults lead there."""
        return self._servers["elsewhere"].url

    def environment(self) -> dict[str, str]:
        """What to set for a process that is to use this Hub: its address, its token, and an empty cache."""
        home = self._folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": self.token,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "0" if self.cas else "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
            "TRANSFORMERS_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
            "ADAPTERKIT_HUB_HOSTS": self.storage_url.removeprefix("http://") + ",xet",
        }

    def repository(self, name: str) -> Repository:
        """A repository, to look into.

        Raises:
            LookupError: There is none of this name.
        """
        if name not in self.repositories:
            raise LookupError(
                f"the Hub has no repository {name!r}; there are: {', '.join(sorted(self.repositories)) or 'none'}"
            )
        return self.repositories[name]

    def create(self, name: str, *, private: bool = False) -> Repository:
        """Make a repository of one commit, as the real Hub does; what was there under this name is gone."""
        with self.lock:
            made = self.repositories[name] = Repository(name, self.blobs, private=private)
            self.blobs.keep(_ATTRIBUTES)
            made.commit({".gitattributes": File.regular(_ATTRIBUTES)}, "initial commit")
            return made

    def put(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        title: str = "Put there directly",
        branch: str = "main",
        private: bool = False,
        hostile: bool = False,
    ) -> Commit:
        """Commit files without a request; the repository is made if there is none.

        Args:
            name: The repository.
            files: Contents by path.
            title: The commit's message.
            branch: The branch, which is there.
            private: Whether nobody reads a new repository without a token.
            hostile: Take any path, such as ``"../x"``; the repository then holds these files and no others.

        Raises:
            ValueError: A path would be refused in a commit, and ``hostile`` is not set.
        """
        with self.lock:
            repo = self.repositories.get(name) or self.create(name, private=private)
            kept = {} if hostile else dict(repo.resolve(branch).files)
            for path, content in files.items():
                kept[path if hostile else checked_path(path)] = self._file(path, content)
            return repo.commit(kept, title, branch=branch)

    def answer(self, request: Request) -> Answer:
        """The answer to a request, faults included.

        Raises:
            HangUp: There is to be none.
        """
        return self.faults.around(self, request, lambda: self._true_answer(request))

    def xet_hash(self, file: File) -> str | None:
        """The Xet hash of a large file; ``None`` without Xet storage, or if the Hub has lost it."""
        content = self.blobs.get(file.sha256)
        return self.cas.keep(content) if self.cas and content is not None else None

    def hash_of_other_bytes(self, sha256: str) -> str:
        """The Xet hash of as many bytes as a file has, all of them others."""
        with self.lock:
            return self.needs_cas().keep(other_bytes(self.blobs.get(sha256) or b""))

    def needs_cas(self) -> Cas:
        """Xet storage.

        Raises:
            HubError: There is none.
        """
        if self.cas is None:
            raise HubError(404, "This Hub has no Xet storage: set HF_HUB_DISABLE_XET=1")
        return self.cas

    def signed(self, method: str, path: str) -> str:
        """An address in storage that needs no token."""
        return f"{self.storage_url}{path}?signature={self._signature(method, path)}"

    def check_signature(self, request: Request) -> None:
        """Refuse an address that :meth:`signed` did not make.

        Raises:
            HubError: 403.
        """
        method = "GET" if request.method == "HEAD" else request.method
        if request.query.get("signature") != [self._signature(method, request.path)]:
            raise HubError(403, "The signature does not match")

    def _signature(self, method: str, path: str) -> str:
        return hmac.new(self._secret, f"{method} {path}".encode(), "sha256").hexdigest()

    def _file(self, path: str, content: bytes) -> File:
        sha256 = self.blobs.keep(content)
        large = content and is_large(path, len(content), content[:512])
        return File.large(sha256, len(content)) if large else File.regular(content)

    def _true_answer(self, request: Request) -> Answer:
        try:
            return self._routed(request)
        except HubError as error:
            return error.answer
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            return HubError(400, f"The request is not understood: {error!r}").answer

    def _routed(self, request: Request) -> Answer:
        found = find(request)
        if found is None:
            raise HubError(404, f"The test Hub has no route for {request.method} {request.path}")
        route, names = found
        values: dict[str, Any] = dict(names)
        with self.lock:
            if route.access in {"read", "download", "write"}:
                values["repo"] = admit(self, request, route.access, names["repo"])
            else:
                admit(self, request, route.access, None)
            return route.function(self, request, **values)
