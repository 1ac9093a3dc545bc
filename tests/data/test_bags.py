"""Bags of ROS 1 and 2 and MCAP files: the numbers, the clock, and what is put on it."""

import contextlib
import json
import sqlite3

import numpy as np
import pytest

from dso_robotics.data.convert import convert_table
from dso_robotics.errors import DsoError

rosbags = pytest.importorskip("rosbags")
mcap_writer = pytest.importorskip("mcap.writer")

from rosbags import rosbag1, rosbag2  # noqa: E402
from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: E402

START = 1_700_000_000_000_000_000
COUNT, STEP = 40, 10_000_000
TICKS = np.arange(COUNT)
Q = np.stack([np.sin(0.1 * TICKS), np.cos(0.1 * TICKS)], 1)
JOINTS = ("shoulder", "elbow")


class Maker:
    """Messages of a small arm. log: lists of topic, type, stamp of the log [ns], message."""

    def __init__(self, ros: int):
        self.ros = ros
        self.store = get_typestore(Stores.ROS2_HUMBLE if ros == 2 else Stores.ROS1_NOETIC)
        self.log = []

    def make(self, kind, **fields):
        return self.store.types[kind](**fields)

    def header(self, stamp):
        time = self.make("builtin_interfaces/msg/Time", sec=stamp // 10**9, nanosec=stamp % 10**9)
        more = {"seq": 0} if self.ros == 1 else {}
        return self.make("std_msgs/msg/Header", stamp=time, frame_id="base", **more)

    def joint(self, logged, stamp, position, names=JOINTS, topic="/joint_states"):
        none = np.zeros(0)
        message = self.make(
            "sensor_msgs/msg/JointState",
            header=self.header(stamp),
            name=list(names),
            position=np.array(position, dtype=np.float64),
            velocity=none,
            effort=none,
        )
        self.log.append((topic, "sensor_msgs/msg/JointState", logged, message))

    def command(self, logged, values, topic="/cmd"):
        layout = self.make("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
        message = self.make("std_msgs/msg/Float64MultiArray", layout=layout, data=np.array(values, dtype=np.float64))
        self.log.append((topic, "std_msgs/msg/Float64MultiArray", logged, message))

    def number(self, logged, value, topic):
        self.log.append((topic, "std_msgs/msg/Float64", logged, self.make("std_msgs/msg/Float64", data=float(value))))

    def raw(self, kind, message):
        return bytes(
            self.store.serialize_cdr(message, kind) if self.ros == 2 else self.store.serialize_ros1(message, kind)
        )

    def written(self, path, form):
        lines = sorted(self.log, key=lambda line: line[2])
        if form == "mcap":
            return self.lone(path.with_suffix(".mcap"), lines)
        if form.startswith("bag1"):
            path = path.with_suffix(".bag")
            writer = rosbag1.Writer(path)
            if form == "bag1 bz2":
                writer.set_compression(rosbag1.Writer.CompressionFormat.BZ2)
        else:
            plugin = rosbag2.StoragePlugin.MCAP if "mcap" in form else rosbag2.StoragePlugin.SQLITE3
            writer = rosbag2.Writer(path, version=9 if "9" in form else 8, storage_plugin=plugin)
            if "zstd" in form:
                writer.set_compression(rosbag2.CompressionMode.MESSAGE, rosbag2.CompressionFormat.ZSTD)
        with writer:
            known = {}
            for topic, kind, logged, message in lines:
                if topic not in known:
                    known[topic] = writer.add_connection(topic, kind, typestore=self.store)
                writer.write(known[topic], logged, self.raw(kind, message))
        return path

    def lone(self, path, lines):
        with path.open("wb") as stream:
            writer = mcap_writer.Writer(stream)
            writer.start()
            channels = {}
            for topic, kind, logged, message in lines:
                if topic not in channels:
                    text = self.store.generate_msgdef(kind, ros_version=self.ros)[0]
                    encoding = "ros2msg" if self.ros == 2 else "ros1msg"
                    schema = writer.register_schema(kind, encoding, text.encode())
                    channels[topic] = writer.register_channel(topic, "cdr" if self.ros == 2 else "ros1", schema)
                writer.add_message(channels[topic], logged, self.raw(kind, message), logged)
            writer.finish()
        return path


def arm(ros=2) -> Maker:
    """Positions at 100 Hz, stamped 3 ms before they are logged; commands at 25 Hz, of which the first comes with sample 4."""
    maker = Maker(ros)
    for i in range(COUNT):
        maker.joint(START + i * STEP + 3_000_000, START + i * STEP, Q[i])
    for i in range(4, COUNT, 4):
        maker.command(START + i * STEP, [i, -i])
    return maker


FORMS = [
    (1, "bag1"),
    (1, "bag1 bz2"),
    (1, "mcap"),
    (2, "bag2 sqlite 8"),
    (2, "bag2 sqlite 9"),
    (2, "bag2 mcap 9"),
    (2, "bag2 sqlite 9 zstd"),
    (2, "mcap"),
]


@pytest.mark.parametrize(("ros", "form"), FORMS)
def test_every_form(tmp_path, ros, form):
    path = arm(ros).written(tmp_path / "run", form)
    found = convert_table(path, ["tau=/cmd/data[1]"], ["q=/joint_states/position[elbow]:rad"])
    (rollout,) = found.rollouts
    assert rollout.name == "run"
    np.testing.assert_allclose(rollout.time, TICKS[: COUNT - 4] * 0.01, atol=1e-9)
    np.testing.assert_array_equal(rollout.sensor("q"), Q[4:, 1])
    np.testing.assert_array_equal(rollout.control("tau"), -(TICKS[4:] // 4 * 4))
    assert any("4 of 40 samples come before the first message" in note for note in found.notes)
    assert "/cmd/data[0]" in found.unused


def test_dots_and_the_file_in_the_folder(tmp_path):
    path = arm().written(tmp_path / "run", "bag2 sqlite 9")
    (file,) = path.glob("*.db3")
    found = convert_table(file, [], ["q=/joint_states.position[shoulder]"])
    np.testing.assert_array_equal(found.rollouts[0].sensor("q"), Q[:, 0])


def test_a_slower_sensor_is_empty_between_and_one_of_the_same_rate_is_joined(tmp_path):
    maker = Maker(2)
    for i in range(COUNT):
        maker.number(START + i * STEP, i, "/fast")
        maker.number(START + i * STEP + 2_000_000, 10 * i, "/same")
    for i in range(0, COUNT, 5):
        maker.number(START + i * STEP + 1_000_000, i, "/slow")
    for i in range(4 * COUNT):
        maker.number(START + i * STEP // 4, i, "/faster")
    path = maker.written(tmp_path / "run", "mcap")
    (rollout,) = convert_table(path, [], ["/fast/data", "/same/data", "/slow/data", "/faster/data"]).rollouts
    np.testing.assert_allclose(rollout.time, TICKS * 0.01, atol=1e-9)
    np.testing.assert_array_equal(rollout.sensor("/same/data"), 10 * TICKS)
    np.testing.assert_array_equal(rollout.sensor("/slow/data"), np.where(TICKS % 5 == 0, TICKS, np.nan))
    np.testing.assert_array_equal(rollout.sensor("/faster/data"), 4 * TICKS)
    (rollout,) = convert_table(path, [], ["/slow/data", "/fast/data"]).rollouts
    np.testing.assert_array_equal(rollout.sensor("/fast/data"), np.arange(0, COUNT, 5))


def test_two_publishers_of_one_topic(tmp_path):
    maker = Maker(2)
    for i in range(COUNT):
        maker.joint(START + i * STEP, START + i * STEP, Q[i, :1], names=("shoulder",))
        maker.joint(START + i * STEP + 1, START + i * STEP + 1, Q[i, 1:], names=("gripper",))
    path = maker.written(tmp_path / "run", "mcap")
    sensors = ["a=/joint_states/position[shoulder]", "b=/joint_states/position[gripper]"]
    (rollout,) = convert_table(path, [], sensors).rollouts
    np.testing.assert_array_equal(rollout.sensordata, Q)


def test_headers_of_a_simulated_clock(tmp_path):
    """Commands have no header, so the header's clock of the simulation cannot place them."""
    maker = Maker(2)
    for i in range(COUNT):
        maker.joint(START + i * STEP, 10**9 + i * STEP // 2, Q[i])
        maker.command(START + i * STEP, [i])
    path = maker.written(tmp_path / "run", "mcap")
    found = convert_table(path, ["u=/cmd/data"], ["q=/joint_states/position[elbow]"])
    np.testing.assert_array_equal(found.rollouts[0].control("u"), TICKS)
    assert any("another clock" in note for note in found.notes)
    (alone,) = convert_table(path, [], ["q=/joint_states/position[elbow]"]).rollouts
    assert alone.time[-1] - alone.time[0] == pytest.approx(0.005 * (COUNT - 1))


def test_a_header_that_was_never_set(tmp_path):
    maker = Maker(2)
    for i in range(COUNT):
        maker.joint(START + i * STEP, 0, Q[i])
    path = maker.written(tmp_path / "run", "mcap")
    (rollout,) = convert_table(path, [], ["q=/joint_states/position[elbow]"]).rollouts
    np.testing.assert_allclose(rollout.time, TICKS * 0.01, atol=1e-9)


def test_a_type_of_ones_own_is_read_from_the_recording(tmp_path):
    maker = Maker(2)
    maker.store.register(get_types_from_msg("float64 force\nfloat32[3] torque\n", "rig/msg/Load"))
    for i in range(COUNT):
        message = maker.make("rig/msg/Load", force=i, torque=np.array([0, i, 0], np.float32))
        maker.log.append(("/load", "rig/msg/Load", START + i * STEP, message))
    path = maker.written(tmp_path / "own", "bag2 mcap 9")
    (rollout,) = convert_table(path, [], ["/load/force", "t=/load/torque[1]"]).rollouts
    np.testing.assert_array_equal(rollout.sensordata, np.stack([TICKS, TICKS], 1))


def test_a_type_that_nothing_defines_is_refused_by_name(tmp_path):
    maker = arm()
    path = maker.written(tmp_path / "run", "bag2 sqlite 8")
    with sqlite3.connect(next(path.glob("*.db3"))) as base:
        base.execute("UPDATE topics SET type = 'rig/msg/Unknown' WHERE name = '/cmd'")
        tables = {row[0] for row in base.execute("SELECT name FROM sqlite_master")}
        if "message_definitions" in tables:
            base.execute("DELETE FROM message_definitions")
    text = (path / "metadata.yaml").read_text().replace("std_msgs/msg/Float64MultiArray", "rig/msg/Unknown")
    (path / "metadata.yaml").write_text(text)
    with pytest.raises(DsoError, match="rig/msg/Unknown"):
        convert_table(path, ["u=/cmd/data[0]"], ["q=/joint_states/position[elbow]"])
    assert convert_table(path, [], ["q=/joint_states/position[elbow]"]).rollouts


def test_json_and_encodings_that_are_not_read(tmp_path):
    path = tmp_path / "a.mcap"
    with path.open("wb") as stream:
        writer = mcap_writer.Writer(stream)
        writer.start()
        schema = writer.register_schema("thing", "jsonschema", b"{}")
        other = writer.register_schema("rig.Load", "protobuf", b"")
        plain = writer.register_channel("/thing", "json", schema)
        coded = writer.register_channel("/load", "protobuf", other)
        for i in range(COUNT):
            text = json.dumps({"pose": {"x": i}, "label": "a", "v": [1, i]}).encode()
            writer.add_message(plain, START + i * STEP, text, 0)
            writer.add_message(coded, START + i * STEP, b"\x08\x01", 0)
        writer.finish()
    (rollout,) = convert_table(path, [], ["x=/thing/pose/x", "v=/thing/v[1]"]).rollouts
    np.testing.assert_array_equal(rollout.sensordata, np.stack([TICKS, TICKS], 1))
    with pytest.raises(DsoError, match="'protobuf'"):
        convert_table(path, [], ["x=/load/x"])


def test_time_from_a_column(tmp_path):
    path = arm().written(tmp_path / "run", "mcap")
    stamp = "/joint_states/header/stamp/{}"
    time = stamp.format("sec") + "+" + stamp.format("nanosec") + "*1e-9"
    (rollout,) = convert_table(path, ["u=/cmd/data[0]"], ["q=/joint_states/position[elbow]"], time=time).rollouts
    np.testing.assert_allclose(rollout.time - rollout.time[0], TICKS[: COUNT - 4] * 0.01, atol=1e-6)


def test_a_chunk_that_claims_terabytes(tmp_path, monkeypatch):
    path = arm().written(tmp_path / "run", "mcap")
    records = pytest.importorskip("mcap.records")
    read = records.ChunkIndex.read

    def forged(stream):
        index = read(stream)
        index.uncompressed_size = 1 << 42
        return index

    monkeypatch.setattr(records.ChunkIndex, "read", staticmethod(forged))
    with pytest.raises(DsoError, match="claims"):
        convert_table(path, [], ["q=/joint_states/position[elbow]"])


def test_columns_that_there_are_not(tmp_path):
    path = arm().written(tmp_path / "run", "mcap")
    with pytest.raises(DsoError, match=r"Did you mean '/joint_states/position\[elbow\]'"):
        convert_table(path, [], ["q=/joint_states/position[elbo]"])
    with pytest.raises(DsoError, match=r"has several columns.*position\[shoulder\]"):
        convert_table(path, [], ["q=/joint_states/position"])
    with pytest.raises(DsoError, match="nothing to convert"):
        convert_table(path)


@pytest.mark.parametrize("form", ["bag1", "mcap", "bag2 sqlite 9"])
def test_damaged_recordings_end_in_one_refusal(tmp_path, form):
    path = arm(1 if form == "bag1" else 2).written(tmp_path / "run", form)
    file = next(path.glob("*.db3")) if path.is_dir() else path
    content, chance = file.read_bytes(), np.random.default_rng(1)
    for trial in range(12):
        damaged = bytearray(content)
        if trial % 3 == 0:
            damaged = damaged[: int(chance.integers(20, len(content)))]
        else:
            at = int(chance.integers(16, len(content) - 8))
            damaged[at : at + 4 * (trial % 3)] = b"\xff" * (4 * (trial % 3))
        file.write_bytes(damaged)
        with contextlib.suppress(DsoError):  # numbers that are damaged are numbers still
            convert_table(path, ["u=/cmd/data[0]"], ["q=/joint_states/position[elbow]"])


def test_without_the_extra(tmp_path, monkeypatch):
    path = arm().written(tmp_path / "run", "mcap")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DsoError, match=r"pip install 'dso-robotics\[logs\]'"):
        convert_table(path, [], ["q=/joint_states/position[elbow]"])
