"""``/v1/chat/completions`` and ``/v1/completions``: whole answers, and streams of server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
from fastapi import Request  # noqa: TC002 - FastAPI reads the annotation
from fastapi.responses import JSONResponse, Response, StreamingResponse

from adapterkit.errors import ArtifactError, EngineError, OverloadedError, UnknownNameError

from .errors import RefusalError, body_of, of_error
from .gate import noted
from .prompts import ChatAsked, CompletionAsked  # noqa: TC001 - likewise
from .shapes import ChatShape, CompletionShape, usage_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from starlette.types import Receive, Scope, Send

    from adapterkit.serving.answering import Answer, Piece
    from adapterkit.serving.engine import Engine

    from .readers import Readers
    from .shapes import Shape

__all__ = ["chat", "complete"]

log = logging.getLogger("adapterkit.serving.http")
DONE = b"data: [DONE]\n\n"
GIVEN_UP = "the request was given up before it was answered: the server stops, or the client left"


async def chat(asked: ChatAsked, request: Request) -> Response:
    """Answer a chat."""
    return await _answer(asked, request, ChatShape(logprobs=bool(asked.logprobs)))


async def complete(asked: CompletionAsked, request: Request) -> Response:
    """Go on from texts as they are."""
    return await _answer(asked, request, CompletionShape(logprobs=asked.logprobs is not None))


@attrs.frozen
class _Asked:
    """Answers under way, and how they are written."""

    asked: ChatAsked | CompletionAsked
    answers: Sequence[Answer]
    shape: Shape
    fingerprint: str
    name: str
    created: int = attrs.field(factory=lambda: int(time.time()))

    def usage(self) -> dict[str, Any]:
        return usage_of(self.answers, self.asked.answers)

    def head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.shape.prefix + self.name,
            "object": kind,
            "created": self.created,
            "model": self.asked.model,
            "system_fingerprint": self.fingerprint,
        }


async def _answer(asked: ChatAsked | CompletionAsked, request: Request, shape: Shape) -> Response:
    engine: Engine = request.app.state.engine
    answers = await _submit(engine, asked, request)
    digest = answers[0].choice.digest
    under_way = _Asked(
        asked,
        answers,
        shape,
        fingerprint=(digest or engine.base.reference.fingerprint)[:12],
        # two requests may come with the same id
        name=f"{request.scope['adapterkit']['id'].removeprefix('req-')}-{uuid.uuid4().hex[:12]}",
    )
    headers = {"x-adapterkit-digest": digest or engine.base.reference.fingerprint}
    if asked.stream:
        return _Events(under_way, headers)
    try:
        async with _leaving_cancels(request.receive, answers):
            content = await _whole(under_way)
    finally:
        _note(request.scope, under_way)
    return JSONResponse(content, headers=headers)


async def _submit(engine: Engine, asked: ChatAsked | CompletionAsked, request: Request) -> list[Answer]:
    """Ask the engine for each answer; where one is refused, none is made.

    Raises:
        RefusalError: The model is unknown, or the client has left.
        OverloadedError: Too many requests wait to be read; and what else the engine raises.
    """
    readers: Readers = request.app.state.readers
    try:
        readers.check()
    except OverloadedError as error:
        engine.watcher.refused(asked.model, error)
        raise
    caller, name = request.scope["adapterkit"]["caller"], request.scope["adapterkit"]["id"]
    answers: list[Answer] = []
    try:
        for prompt in asked.prompts():
            for _ in range(asked.answers):
                number = len(answers)
                ask = partial(engine.submit, prompt, model=asked.model, key=caller.name, id=f"{name}-{number}")
                with engine.watcher.asking(asked.operation, request.headers):
                    answers.append(await readers.run(partial(ask, **asked.options(number)), request))
    except BaseException as error:
        for answer in answers:
            answer.cancel()
        if isinstance(error, UnknownNameError):
            raise RefusalError(404, str(error), param="model", code="model_not_found") from error
        raise
    return answers


async def _whole(under_way: _Asked) -> dict[str, Any]:
    texts: list[list[str]] = [[] for _ in under_way.answers]
    tokens: list[list[Any]] = [[] for _ in under_way.answers]
    async with contextlib.aclosing(_pieces(under_way.answers)) as pieces:
        async for index, piece in pieces:
            if piece is not None:
                texts[index].append(piece.text)
                tokens[index].extend(piece.tokens)
    choices = [
        {**under_way.shape.all(index, "".join(texts[index]), tokens[index]), "finish_reason": answer.finish_reason}
        for index, answer in enumerate(under_way.answers)
    ]
    return {**under_way.head(under_way.shape.whole), "choices": choices, "usage": under_way.usage()}


class _Events(StreamingResponse):
    """A stream of chunks. Its status is sent with the first of them: what fails before has a status of its own."""

    def __init__(self, under_way: _Asked, headers: dict[str, str]) -> None:
        self._under_way = under_way
        told = {**headers, "cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(self._events(), headers=told, media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        self._scope = scope
        try:
            async with (
                _leaving_cancels(receive, self._under_way.answers),
                contextlib.aclosing(_pieces(self._under_way.answers)) as pieces,
            ):
                self._first, self._pieces = await anext(pieces), pieces
                await self.stream_response(send)
        finally:
            _note(scope, self._under_way)

    async def _events(self) -> AsyncIterator[bytes]:
        for index in range(len(self._under_way.answers)):
            opening = self._under_way.shape.opening(index)
            if opening is not None:
                yield self._chunk([{**opening, "finish_reason": None}])
        try:
            yield self._written(*self._first)
            async for index, piece in self._pieces:
                if piece is None or piece.text or (piece.tokens and self._under_way.shape.logprobs):
                    yield self._written(index, piece)
        except Exception as error:  # noqa: BLE001 - the status is sent: all that can be done is to say so in the stream
            yield b"data: " + body_of(_refusal_of(error, self._scope)) + b"\n\n"
            return
        if self._under_way.asked.wants_usage:
            yield self._chunk([], usage=self._under_way.usage())
        yield DONE

    def _written(self, index: int, piece: Piece | None) -> bytes:
        shape = self._under_way.shape
        if piece is None:
            return self._chunk(
                [{**shape.closing(index), "finish_reason": self._under_way.answers[index].finish_reason}]
            )
        return self._chunk([{**shape.part(index, piece.text, piece.tokens), "finish_reason": None}])

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        chunk = {**self._under_way.head(self._under_way.shape.chunk), "choices": choices}
        if self._under_way.asked.wants_usage:
            chunk["usage"] = usage
        # ASCII: some clients take U+2028 and U+0085, which a text may hold, for the ends of lines
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"


async def _pieces(answers: Sequence[Answer]) -> AsyncGenerator[tuple[int, Piece | None], None]:
    """The pieces of all answers as they come, each with its answer's index; None once an answer is whole.

    Raises:
        EngineError: An answer was cancelled, as the engine stops; and what an answer failed of.
    """
    news: asyncio.Queue[tuple[int, Piece | BaseException | None]] = asyncio.Queue()

    async def follow(index: int, answer: Answer) -> None:
        try:
            async for piece in answer:
                news.put_nowait((index, piece))
            given_up = answer.finish_reason == "cancelled"
            news.put_nowait((index, EngineError(GIVEN_UP) if given_up else None))
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            news.put_nowait((index, error))

    tasks = [asyncio.create_task(follow(index, answer)) for index, answer in enumerate(answers)]
    try:
        left = len(tasks)
        while left:
            index, piece = await news.get()
            if isinstance(piece, BaseException):
                raise _explained(piece)
            left -= piece is None
            yield index, piece
    finally:
        for task in tasks:
            task.cancel()


@contextlib.asynccontextmanager
async def _leaving_cancels(receive: Receive, answers: Sequence[Answer]) -> AsyncIterator[None]:
    """Give answers up when the client leaves, and when this is left before they are whole."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        for answer in answers:
            answer.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        for answer in answers:
            if not answer.done:
                answer.cancel()


def _explained(error: BaseException) -> BaseException:
    """An adapter that cannot be read is not the client's doing, and where it lies is not the client's business."""
    if isinstance(error, (ArtifactError, OSError)) and not isinstance(error, TimeoutError):
        log.error("an adapter could not be loaded: %s", error)
        return RefusalError(
            503, "the adapter cannot be loaded; the server's log says why", "server_error", code="adapter_unavailable"
        )
    return error


def _refusal_of(error: Exception, scope: Scope) -> RefusalError:
    known = of_error(error)
    if known is not None:
        return known
    name = scope["adapterkit"]["id"]
    log.error("a request failed", exc_info=error, extra={"fields": {"id": name}})
    return RefusalError(500, f"the server failed; its log says why, under {name}", "server_error")


def _note(scope: Scope, under_way: _Asked) -> None:
    usage = under_way.usage()
    reasons = sorted({answer.finish_reason or "failed" for answer in under_way.answers})
    first = under_way.answers[0].usage
    if first is not None:
        noted(scope).update(
            queue_milliseconds=round(first.queued * 1000, 1),
            first_token_milliseconds=round(first.first_token * 1000, 1),
        )
    noted(scope).update(
        model=under_way.asked.model,
        adapter=under_way.answers[0].choice.name,
        digest=under_way.fingerprint,
        prompt_tokens=usage["prompt_tokens"],
        completion_tokens=usage["completion_tokens"],
        finish=",".join(reasons),
    )
