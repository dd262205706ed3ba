"""Measuring a server: what is counted, what is refused, and that no server is left behind."""

from __future__ import annotations

import json
import os
import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest
from postgres import is_alive

from inference.case import read_case
from training.bench_mlflow import mlflow_bodies, save_for_mlflow
from training.bench_service import BenchError, Measured, as_body, free_port, measure, ratio_rows, serving, structured_cases, write_raw

SERVER = """
    import os, sys
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def do_GET(self):
            self.answer(200)
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(201 if self.headers["X-Key"] == "right" else 503)
        def answer(self, status):
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
        def log_message(self, *_):
            pass
    print("cores", sorted(os.sched_getaffinity(0)), os.environ["GREETING"], file=sys.stderr)
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def command(port: int, program: str = SERVER) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(program), str(port)]


def test_a_server_is_measured_and_ended():
    """Requests, times and processor time are of the run alone; the server is pinned to one core and gone afterwards."""
    port = free_port()
    with serving(command(port), port, "/ready", {"GREETING": "salam"}) as server:
        assert os.sched_getaffinity(server) == {min(os.sched_getaffinity(0))}
        one = measure(server, port, "/x", {"X-Key": "right"}, [b"{}"], name="one", connections=2, seconds=0.3, warm_up_seconds=0)
        with pytest.raises(BenchError, match=r"^no: expected only answers of success, found 0 errors and the statuses \{'503': \d+\}$"):
            measure(server, port, "/x", {}, [b"{}"], name="no", connections=2, seconds=0.1, warm_up_seconds=0)
    assert not is_alive(server)
    assert (one.name, one.connections) == ("one", 2)
    assert one.requests > 0 and one.server_cpu_ms > 0 and 0 < one.p50_ms <= one.p99_ms


def test_a_server_that_ends_early_is_named_with_its_last_words():
    """Its exit status and what it printed last are in the error."""
    with (
        pytest.raises(BenchError, match=r"ended with 3 before it was ready: no models here$"),
        serving(command(1, "import sys\nprint('no models here')\nsys.exit(3)"), 1, "/ready"),
    ):
        pytest.fail("it was never ready")


def test_a_server_that_ends_under_load_is_named():
    """A measurement of a server that has gone is none."""
    port = free_port()

    def kill_it():
        with serving(command(port), port, "/ready", {"GREETING": "salam"}) as server:
            os.kill(server, signal.SIGKILL)
            while is_alive(server):
                time.sleep(0.01)
            time.sleep(0.5)  # its other threads end a little later, and only then can it be waited for

    with pytest.raises(BenchError, match=r"ended with -9 under load: cores \[\d+\] salam$"):
        kill_it()


def test_cases_are_structured_distinct_and_the_same_for_the_same_seed(catalogue_folder):
    """Findings and vitals without words or photos, and nothing in them that the reader sets aside."""
    cases = structured_cases(catalogue_folder, 20)
    assert cases == structured_cases(catalogue_folder, 20)
    assert len({as_body(case) for case in cases}) == 20
    for case in cases:
        reading = read_case(json.loads(as_body(case)), "x")
        assert reading.problems == ()
        assert reading.case.complaint == "" and reading.case.photos == ()
        assert len(reading.case.findings) >= 2 and case["vitals"]


@pytest.mark.filterwarnings("ignore::UserWarning")  # mlflow's own, when it is imported
def test_mlflow_scores_the_bodies_as_the_bundle_does(tmp_path, models_folder, catalogue_folder):
    """The yardstick answers the same question: its probabilities are the bundle's for the same inputs."""
    import mlflow
    import numpy as np
    from mlflow.pyfunc.scoring_server import infer_and_parse_data

    from inference.bundle import load_bundle
    from inference.models import live_versions

    symptoms = models_folder / "symptoms" / live_versions(models_folder)["symptoms"]
    save_for_mlflow(symptoms, tmp_path / "model")
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    for body in mlflow_bodies(symptoms, structured_cases(catalogue_folder, 3)):
        rows = json.loads(body)["inputs"]
        answer = model.predict(infer_and_parse_data(json.loads(body), model.metadata.get_input_schema()))
        feeds = {
            "evidence": np.float32(rows["evidence"]),
            "demographics": np.int64(rows["demographics"]),
            "log_shift": np.float32(rows["log_shift"]),
        }
        assert np.abs(feeds["evidence"]).sum() >= 2
        np.testing.assert_allclose(answer["probabilities"], load_bundle(symptoms).run(feeds)["probabilities"], rtol=1e-5)


def test_ratios_and_raw_numbers(tmp_path):
    """Twice the throughput, a tenth of the time and a quarter of the processor's; the raw numbers are kept beside."""
    slow = Measured("slow", 100, 10.0, 50.0, 200.0, 4.0, 32, 0.5)
    fast = Measured("fast", 200, 20.0, 5.0, 20.0, 1.0, 32, 0.5)
    assert ratio_rows(slow, [fast]) == [
        ("fast against slow: throughput ratio", "2.0"),
        ("the same: ratio of the 99th percentiles of the answer's time", "0.100"),
        ("the same: ratio of the server's processor time a request", "0.250"),
    ]
    write_raw(tmp_path / "bench" / "raw.json", [slow, fast])
    assert [one["name"] for one in json.loads(Path(tmp_path / "bench" / "raw.json").read_text())["measured"]] == ["slow", "fast"]
