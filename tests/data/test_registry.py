"""Registered recordings: found, verified, converted; and a dead network keeps nobody waiting."""

import hashlib
import http.server
import re
import socket
import threading
import time

import numpy as np
import pytest

from dso_robotics.data import registry as registry_module
from dso_robotics.data.download import download
from dso_robotics.data.log import problems
from dso_robotics.data.match import match_channels
from dso_robotics.data.registry import Recording, Source, fetch, reduce_csv, registry
from dso_robotics.errors import DsoError

FULL = b"time,q,copy,tau\n0.000000000e+00,1.23456789012e-01,1.0,-5.0e-01\n2.0000001e-03,1.3e+00,1.0,0.0e+00\n"
REDUCED = b"time,q,tau\n0,0.1234568,-0.5\n0.002,1.3,0\n"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Requests to this machine must not go through a proxy of the environment."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A fresh cache folder, and no DSO_DATA."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("DSO_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / name)
    return tmp_path / "dso-robotics" / "small"


@pytest.fixture
def server():
    """Function that serves one content (None: accept and stay silent); returns the URL and a list of requests."""
    running = []

    def serve(content, status=200):
        asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                if content is None:
                    time.sleep(1.5)
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True).start()
        running.append(httpd)
        return f"http://127.0.0.1:{httpd.server_port}/file.csv", asked

    yield serve
    for httpd in running:
        httpd.shutdown()


@pytest.fixture
def small(monkeypatch):
    """Function that registers a recording of one file at a URL."""

    def register(url, **changes):
        hashes = {"sha256": "", "sha256_reduced": hashlib.sha256(REDUCED).hexdigest()} | changes
        recording = Recording(
            name="small",
            title="Small",
            licence="CC0-1.0",
            citation="nobody",
            source="nowhere",
            time="time",
            ctrl=("motor=tau:N*m",),
            sensors=("angle=q:rad",),
            columns=("time", "q", "tau"),
            digits=7,
            files=(Source(rollout="00", local="00.csv", url=url, **hashes),),
        )
        monkeypatch.setattr(registry_module, "registry", lambda: {"small": recording})

    return register


def test_reduction():
    assert reduce_csv(FULL, ("time", "q", "tau"), 7) == REDUCED
    assert reduce_csv(REDUCED, ("time", "q", "tau"), 7) == REDUCED
    with pytest.raises(ValueError, match="q"):
        reduce_csv(FULL.replace(b",q,", b",x,"), ("time", "q", "tau"), 7)


@pytest.mark.parametrize("content", [FULL, REDUCED])
def test_download_is_verified_converted_and_cached(cache, server, small, content):
    url, asked = server(content)
    small(url)
    said = []
    log = fetch("small", progress=said.append)
    assert said == ["small: downloading 00.csv (1 of 1)"]
    np.testing.assert_array_equal(log["00"].control("motor"), [-0.5, 0])
    np.testing.assert_array_equal(log["00"].sensor("angle"), [0.1234568, 1.3])
    assert log.licence == "CC0-1.0"
    fetch("small")
    assert len(asked) == 1  # the second time from the cache
    (cache / "00.csv").write_bytes(b"spoilt")
    fetch("small")
    assert len(asked) == 2


def test_known_upstream_hash(cache, server, small):
    url, _ = server(REDUCED)
    small(url, sha256=hashlib.sha256(REDUCED).hexdigest(), sha256_reduced="")
    assert fetch("small").names == ("00",)


@pytest.mark.parametrize("content", [FULL.replace(b"1.3e+00", b"1.4e+00"), b"<html>moved</html>", b""])
def test_another_content_is_refused_and_not_kept(cache, server, small, content):
    url, _ = server(content)
    small(url)
    with pytest.raises(DsoError, match=r"differs from the registered file.*DSO_DATA"):
        fetch("small")
    assert not list(cache.iterdir())


def test_refused_connection(cache, small):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/file.csv"
    small(url)
    start = time.monotonic()
    with pytest.raises(DsoError, match=r"download failed \(the connection was refused\).*DSO_DATA"):
        fetch("small")
    assert time.monotonic() - start < 20


def test_a_silent_server_is_given_up(server):
    url, asked = server(None)
    start = time.monotonic()
    with pytest.raises(DsoError, match=r"file\.csv: download failed"):
        download(url, patience=0.5, way_round="walk.")
    assert time.monotonic() - start < 7
    assert len(asked) <= 1  # no retries


def test_a_hanging_name_resolution_is_given_up(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(9))
    start = time.monotonic()
    with pytest.raises(DsoError, match=r"no data for 0\.3 s"):
        download("http://nowhere.invalid/file.csv", patience=0.3)
    assert time.monotonic() - start < 8


def test_a_missing_page(server):
    url, _ = server(b"not here", status=404)
    with pytest.raises(DsoError, match="404"):
        download(url, patience=2.0)


def test_unknown_names_list_the_known():
    with pytest.raises(DsoError, match=r"Did you mean 'dfki_double_pendulum_A0'.*dfki_simple_pendulum"):
        fetch("dfki_double_pendulum")


def test_the_registry_is_complete():
    for name, recording in registry().items():
        assert recording.name == name
        assert recording.licence
        assert recording.citation
        names = [source.rollout for source in recording.files]
        assert len(set(names)) == len(names)
        for source in recording.files:
            assert re.fullmatch(r"https://raw\.githubusercontent\.com/[\w-]+/[\w-]+/[0-9a-f]{40}/[\w./-]+", source.url)
            assert re.fullmatch(r"[0-9a-f]{64}", source.sha256 or source.sha256_reduced)


def test_local_files_are_verified(tmp_path, monkeypatch, small):
    small("http://nowhere.invalid/")
    folder = tmp_path / "small" / "raw"
    folder.mkdir(parents=True)
    monkeypatch.setenv("DSO_DATA", str(tmp_path))
    with pytest.raises(DsoError, match=r"00\.csv: this file of small is missing"):
        fetch("small")
    (folder / "00.csv").write_bytes(REDUCED.replace(b"1.3", b"1.4"))
    with pytest.raises(DsoError, match=r"00\.csv: its content differs"):
        fetch("small")
    for content in (REDUCED, FULL):
        (folder / "00.csv").write_bytes(content)
        assert fetch("small").names == ("00",)


def test_real_two_joint_arm(real_data, arm):
    log = fetch("dfki_double_pendulum_A0")
    assert log.names == ("00", "01", "02", "03", "04", "05", "11", "12", "13")
    assert match_channels(log, arm).warnings == ()
    # The drives send positions as 16 bits of 25 rad and speeds as 12 bits of 45 rad/s; one command stands out.
    told = problems(log)
    assert [text.split(", ")[0].split("channel ")[1] for text in told[:3]] == [
        f"'shoulder_pos' changes in steps of {25 / 2**16:.4g} rad",
        f"'shoulder_vel' changes in steps of {45 / 2**12:.4g} rad/s",
        f"'elbow_vel' changes in steps of {45 / 2**12:.4g} rad/s",
    ]
    assert ["tau1' stands out in 1 sample" in text for text in told[3:]] == [True]
    first = log["00"]
    assert len(first.time) == 4997
    # Second line of the file, copied by hand.
    assert first.time[1] == 0.003299952
    np.testing.assert_array_equal(first.ctrl[1], [0.008791209, 0.002930403])
    np.testing.assert_array_equal(first.sensordata[1], [0.0001907378, 0.0005722133, 0.005494505, -0.02747253])
    # The velocity channels are the derivative of the position channels.
    for position, velocity in (("shoulder_pos", "shoulder_vel"), ("elbow_pos", "elbow_vel")):
        slope = np.gradient(first.sensor(position), first.time)
        assert np.corrcoef(slope, first.sensor(velocity))[0, 1] > 0.99


def test_real_pendulum(real_data):
    log = fetch("dfki_simple_pendulum")
    assert len(log.rollouts) == 9
    assert log["gravity_compensation"].sensor_units == ("rad", "rad/s")
    assert len(log["ilqr"].time) == 1000
