"""Which way packets take, and what it costs while there are none."""


import pytest

from lab import Lab
from namespace import in_user_namespace

pytestmark = pytest.mark.agent
BPF = pytest.mark.skipif(in_user_namespace(), reason="needs eBPF")


# MARK: choice


@BPF
def test_without_a_count_of_processors_there_is_no_ebpf(lab):
    """The kernel writes a counter for each, into memory that must be large enough."""
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/devices/system/cpu && exec "$@"', "sh"]
    agent = lab.agent(wrapper=hidden)
    entry = agent.wait_for("on")
    assert entry["datapath"]["kind"] == "userspace"
    assert "count the possible processors: No such file or directory" in entry["datapath"]["detail"]
    assert "1 received" in lab.laptop.run(["ping", "-n", "-c1", "-W5", Lab.SERVER]).stdout
    assert agent.stop() == 0
