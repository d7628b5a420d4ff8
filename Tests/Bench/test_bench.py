"""That the translator allocates nothing, and that the benchmark can be run."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import contestants

TOOL = contestants.traffic_tool()
pytestmark = pytest.mark.skipif(
    not TOOL.exists() and os.environ.get("CLAT_REQUIRE_AGENT") != "1", reason=f"{TOOL} is not built")


def test_a_packet_costs_no_allocation(tmp_path):
    """In steady state; the C library writes a line for each, and the control shows that it does."""
    environment = os.environ | {"MALLOC_TRACE": str(tmp_path / "trace"), "LD_PRELOAD": "libc_malloc_debug.so.0"}
    result = subprocess.run([TOOL], env=environment, capture_output=True, text=True, timeout=120, check=True)
    counted = re.findall(r"^(.*): (\d+) allocations", result.stdout, re.M)
    control = dict(counted).pop("control, which allocates")
    assert int(control) > 0
    others = {case: int(count) for case, count in counted if not case.startswith("control")}
    assert len(others) > 20 and not any(others.values()), others
    assert re.search(r"^batches: 0 allocations in 1000 rounds, 0 faults$", result.stdout, re.M), result.stdout


@pytest.mark.parametrize("flows", [1, 16])
@pytest.mark.parametrize("what", ["udp-up", "udp-down"])
def test_datagrams_of_all_flows_are_counted(what, flows):
    contestants.namespace.prepare()
    space, = contestants.namespace.create([f"{contestants.PREFIX}{os.getpid()}-flows"])
    try:
        space.ip("link set lo up")
        server = space.popen([TOOL, "serve", "6464"])
        contestants.namespace.wait_until(lambda: ":1940 " in space.read("net/tcp6"), what="the server")
        best, flood = space.run([TOOL, what, "::1", "6464", "0.1", flows], check=True).stdout.split()
        assert float(best) > 100 and float(flood) > 100
    finally:
        contestants.namespace.remove([space.name])
        server.wait()
        space.close()


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("iperf3"), reason="iperf3 is not here")
def test_the_benchmark_measures_everybody_it_is_told_to():
    command = [sys.executable, "-B", pathlib.Path(contestants.__file__).with_name("bench.py"), "--rounds", "1", "--seconds", "1",
               "--idle", "0", "--only", "kernel path"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "do not quote" in result.stdout or "5 rounds at least" in result.stdout
    row = next(line for line in result.stdout.splitlines() if line.startswith("| TCP up, 1 stream"))
    assert "failed" not in row
