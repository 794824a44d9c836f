"""Where llama.cpp's graph of a model has the residual stream after a block, and how it is laid out."""

from __future__ import annotations

from dataclasses import dataclass

from edgecal.architectures.table import GetKey, family_of
from edgecal.errors import ModelError

__all__ = ["PLAIN_STREAM", "ResidualStream", "stream_of"]

STREAMS_KEY = "hyper_connection.count"
MAX_STREAMS = 64

_ALTUP_STREAMS = 4  # fixed in llama.cpp


@dataclass(frozen=True)
class ResidualStream:
    """Where the residual stream is found in a graph.

    Attributes
    ----------
    node: what the graph calls it, in front of a hyphen and the block's number.
    n_streams: how many streams of n_embd floats a token has; more than one in models with hyper-connections and
        the like.
    by_stream: in the tensor all tokens of one stream come before those of the next; else a token's streams are
        neighbours. What is captured has a token's streams side by side either way.
    """

    node: str = "l_out"
    n_streams: int = 1
    by_stream: bool = False


PLAIN_STREAM = ResidualStream()


def stream_of(architecture: str, get: GetKey, where: object) -> ResidualStream:
    """The residual stream of a file; `get` gives the value of a metadata key, None where it is missing.

    Raises
    ------
    ModelError: the architecture has several streams and the file does not say how many; `where` names the file.
    """
    family = family_of(architecture)
    if family.merge is None:
        return ResidualStream(family.node)
    if family.merge == "altup":
        return ResidualStream(family.node, _ALTUP_STREAMS, by_stream=True)
    key = f"{architecture}.{STREAMS_KEY}"
    n_streams = get(key)
    if not isinstance(n_streams, int) or isinstance(n_streams, bool) or not 1 <= n_streams <= MAX_STREAMS:
        raise ModelError(
            f"{where}: {key} is {n_streams!r}, expected 1 to {MAX_STREAMS}; the file is damaged, convert the model "
            "again"
        )
    return ResidualStream(family.node, n_streams)
