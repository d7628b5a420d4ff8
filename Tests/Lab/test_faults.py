"""A few of all faults, some of each scenario; `make faults` has them all."""

import shutil

import pytest

from every_fault import ACCEPT_RA, STATE, TUN
from namespace import in_user_namespace
from ordeals import Fault, scenarios

pytestmark = [
    pytest.mark.agent,
    pytest.mark.skipif(not shutil.which("strace"), reason="strace is not here"),
    pytest.mark.skipif(in_user_namespace(), reason="the figures are those of eBPF"),
]
SAMPLE = {
    "start": [
        Fault("socket", "EMFILE", "4"), Fault("sendto", "ENOBUFS", "6"), Fault("recvmsg", "ENOBUFS", "9"), Fault("unshare", "EPERM", "1+"),
        Fault("bpf", "ENOMEM", "4"), Fault("clone3", "EAGAIN", "2"), Fault("openat", "EMFILE", "1+", TUN), Fault("write", "EPERM", "1", ACCEPT_RA),
        Fault("epoll_ctl", "ENOMEM", "9"), Fault("setns", "ENOMEM", "1+"), Fault("rename", "ENOSPC", "1")],
    "routes": [Fault("sendto", "ENOBUFS", "37")],
    "resolver": [Fault("connect", "ENETUNREACH", "2")],
    "renumbering": [Fault("recvmsg", "ENOBUFS", "1"), Fault("bpf", "ENOMEM", "1"), Fault("sendto", "ENOBUFS", "1+")],
    "stop": [Fault("sendto", "ENOBUFS", "1+")],
    "restart": [Fault("execve", "ENOENT", "1"), Fault("fcntl", "EMFILE", "2"), Fault("memfd_create", "EMFILE", "1"), Fault("pread64", "EIO", "1", STATE)],
    "packets": [Fault("read", "EIO", "3"), Fault("write", "ENOBUFS", "3")],
}


@pytest.fixture(scope="module")
def give():
    with scenarios() as give:
        yield give


@pytest.mark.parametrize(
    "scenario, fault", [(scenario, fault) for scenario, faults in SAMPLE.items() for fault in faults], ids=str)
def test_a_fault_of_many(give, figure, scenario, fault):
    try:
        reached, outcome = give(scenario).suffer(fault)
    except BaseException:
        give(scenario, anew=True)
        raise
    assert reached
    figure(f"{scenario}, {fault}", f"{reached} calls failed; {outcome.splitlines()[-1]}")
