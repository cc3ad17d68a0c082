"""The figures of several replicas as those of one server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.types import Message

__all__ = ["together"]


def together(answers: Mapping[str, Sequence[Message]]) -> Response:
    """One answer for those of replicas to ``GET /metrics``: the figures of each, labelled ``replica``; or what one refused.

    Args:
        answers: The messages of each, by its name.
    """
    refused = next((messages for messages in answers.values() if messages[0]["status"] != 200), None)
    messages = refused or next(iter(answers.values()))
    body = _body(messages) if refused else _labelled({name: _body(one).decode() for name, one in answers.items()})
    response = Response(body, messages[0]["status"])
    kept = [(name, value) for name, value in messages[0]["headers"] if name.lower() != b"content-length"]
    response.raw_headers = [*kept, (b"content-length", str(len(body)).encode())]
    return response


def _body(messages: Sequence[Message]) -> bytes:
    return b"".join(message.get("body", b"") for message in messages)


def _labelled(texts: Mapping[str, str]) -> bytes:
    families: dict[str, Metric] = {}
    for replica, text in sorted(texts.items()):
        for family in text_string_to_metric_families(text):
            kept = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            kept.samples += [one._replace(labels={**one.labels, "replica": replica}) for one in family.samples]
    registry = CollectorRegistry()
    registry.register(_Families(list(families.values())))
    return generate_latest(registry)


class _Families:
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Any]:
        return self._families
