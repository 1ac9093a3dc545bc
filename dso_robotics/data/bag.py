"""Recordings of messages: ROS 1 bags, ROS 2 bags and MCAP files, read message by message.

Definitions of message types are taken from the recording itself. Bags of ROS 2 up to Humble hold none; their types must be
those of ROS.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dso_robotics.data.limits import refuse_oversized
from dso_robotics.errors import DsoError
from dso_robotics.extras import require


@dataclass(frozen=True, eq=False)
class Packet:
    """A message as it is recorded. stamp: when it was logged [ns]. decode: makes it an object with fields."""

    topic: str
    stamp: int
    decode: Callable[[], Any]


@dataclass(frozen=True, eq=False)
class Recording:
    """An open recording.

    topics: each with the name of its type. packets: the messages of some topics, in the order of the log.
    """

    topics: dict[str, str]
    packets: Callable[[set[str]], Iterator[Packet]]


@contextlib.contextmanager
def open_recording(path: Path) -> Iterator[Recording]:
    """Open a bag or an MCAP file.

    Raises:
      MissingExtra: rosbags or mcap is not installed.
      DsoError: the recording is damaged, or a message has a type that is defined nowhere.
    """
    require("logs", f"{path}: is a recording of messages (a ROS bag or MCAP file), and reading it")
    try:
        with _mcap(path) if _is_mcap(path) else _bag(path) as recording:
            yield recording
    except DsoError:
        raise
    except Exception as error:  # the packages that read these formats raise any kind on damaged bytes
        reason = " ".join(ascii(str(error))[1:-1].split())[:200] or type(error).__name__
        raise DsoError(
            f"{path}: is damaged, or incomplete, and cannot be read ({reason}); copy or record it again. `ros2 bag reindex` "
            "and `mcap recover` repair recordings that were not closed."
        ) from error


def _is_mcap(path: Path) -> bool:
    return path.is_file() and path.open("rb").read(5) == b"\x89MCAP"


@contextlib.contextmanager
def _bag(path: Path) -> Iterator[Recording]:
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    if path.is_file() and path.suffix != ".bag":
        raise DsoError(f"{path}: is a ROS bag; give it a name that ends in .bag.")
    known = get_typestore(Stores.ROS2_HUMBLE)
    with AnyReader([path], default_typestore=known) as reader:
        topics = {connection.topic: connection.msgtype for connection in reader.connections}
        store = reader.typestore
        missing = {name for name in topics.values() if name not in store.fielddefs}

        def packets(wanted: set[str]) -> Iterator[Packet]:
            chosen = [connection for connection in reader.connections if connection.topic in wanted]
            for connection in chosen:
                if connection.msgtype in missing:
                    raise _undefined(path, connection.topic, connection.msgtype)
            if chosen:
                for connection, stamp, raw in reader.messages(chosen):
                    decode = _later(reader.deserialize, raw, connection.msgtype)
                    yield Packet(connection.topic, stamp, decode)

        yield Recording(topics, packets)


@contextlib.contextmanager
def _mcap(path: Path) -> Iterator[Recording]:
    from mcap.reader import make_reader

    with path.open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True)
        summary = reader.get_summary()
        if summary is not None:
            chunks = (index.uncompressed_size for index in summary.chunk_indexes)
            refuse_oversized(max(chunks, default=0), path, "a chunk of the recording")
        if summary is not None and summary.channels:
            kinds = {channel.topic: summary.schemas.get(channel.schema_id) for channel in summary.channels.values()}
        else:
            kinds = {channel.topic: schema for schema, channel, _ in reader.iter_messages()}
        decoders: dict[int, Callable[[bytes], Any]] = {}

        def packets(wanted: set[str]) -> Iterator[Packet]:
            for schema, channel, message in reader.iter_messages(topics=sorted(wanted)):
                if channel.id not in decoders:
                    decoders[channel.id] = _decoder(path, schema, channel)
                yield Packet(channel.topic, message.log_time, _later(decoders[channel.id], message.data))

        yield Recording({topic: schema.name if schema else "" for topic, schema in kinds.items()}, packets)


def _decoder(path: Path, schema: Any, channel: Any) -> Callable[[bytes], Any]:
    """The reader of the messages of a channel of an MCAP file."""
    encoding, name = channel.message_encoding, schema.name if schema else ""
    if encoding == "json":
        return lambda data: _fields(json.loads(data))
    if encoding not in ("cdr", "ros1") or schema is None:
        raise DsoError(
            f"{path}: the messages of {channel.topic} ({name}) are encoded as {encoding!r}, which is not read; record them as "
            "ROS messages or JSON, or write the topic as CSV, for example with PlotJuggler."
        )
    from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

    text = schema.data.decode(errors="replace")
    if text.strip():
        read = get_types_from_idl(text) if schema.encoding == "ros2idl" else get_types_from_msg(text, name)
        store = get_typestore(Stores.EMPTY)
        store.register(read)
    else:
        store = get_typestore(Stores.ROS2_HUMBLE if encoding == "cdr" else Stores.ROS1_NOETIC)
    # A package/Type of ROS 1 is called package/msg/Type here.
    own = name if name in store.fielddefs else name.replace("/", "/msg/", 1)
    if own not in store.fielddefs:
        raise _undefined(path, channel.topic, name)
    return lambda data: (store.deserialize_cdr if encoding == "cdr" else store.deserialize_ros1)(data, own)


def _fields(value: Any) -> Any:
    """A value of JSON with objects as objects of Python."""
    if isinstance(value, dict):
        return SimpleNamespace(**{str(key): _fields(part) for key, part in value.items()})
    return [_fields(part) for part in value] if isinstance(value, list) else value


def _later(function: Callable[..., Any], *given: Any) -> Callable[[], Any]:
    return lambda: function(*given)


def _undefined(path: Path, topic: str, kind: str) -> DsoError:
    return DsoError(
        f"{path}: the messages of {topic} have the type {kind}, which neither the recording nor ROS defines; convert the bag "
        "where the package of the type is installed (`ros2 bag convert` to MCAP stores definitions), or write the topic as CSV."
    )
