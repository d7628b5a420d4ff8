"""What each thread of clat-agent may do, as the kernel tells it, and what becomes of one that does more."""

import json
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

import agent
from lab import DATAPATHS
from namespace import wait_until

pytestmark = pytest.mark.agent

DAC_READ_SEARCH, NET_ADMIN, NET_RAW, SYS_PTRACE, SYS_ADMIN = 2, 12, 13, 19, 21
KEPT = 1 << NET_ADMIN | 1 << NET_RAW | 1 << SYS_ADMIN


def threads(process):
    """The status files of a process's threads, as a list of dictionaries."""
    found = []
    for path in pathlib.Path(f"/proc/{process}/task").glob("*/status"):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue  # it has just ended
        found.append(dict(line.split(":\t", 1) for line in lines if ":\t" in line))
    return found


def capabilities(thread):
    """All sets together, but for what no set can be filled from any more."""
    return int(thread["CapInh"], 16) | int(thread["CapPrm"], 16) | int(thread["CapEff"], 16) | int(thread["CapAmb"], 16)


@pytest.mark.parametrize("datapath", DATAPATHS)
def test_every_thread_has_what_it_needs_and_no_more(lab, datapath):
    running = lab.agent(datapath=datapath)
    running.wait_for("on")
    found = threads(running.process.pid)
    for thread in found:
        print(thread["Name"], *(f"{key}={thread[key]}" for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb",
                                                                  "NoNewPrivs", "Seccomp")))
    main = next(thread for thread in found if thread["Pid"] == thread["Tgid"])
    assert capabilities(main) == KEPT and int(main["CapEff"], 16) == KEPT
    assert int(main["CapBnd"], 16) == KEPT, "root may empty the bounding set, too"
    assert all(thread["NoNewPrivs"] == "1" for thread in found)
    packets = [thread for thread in found if thread["Name"] == "clat-packets"]
    assert len(packets) == 1 and capabilities(packets[0]) == 0 and packets[0]["Seccomp"] == "2"
    assert all(capabilities(thread) | KEPT == KEPT for thread in found)
    # And with no more than that it does all that it does.
    assert "1 received" in lab.laptop.run(["ping", "-n", "-c1", "-W5", lab.SERVER]).stdout
    assert "no filter" not in running.interface()["datapath"]["detail"]
    said = lab.laptop.run([agent.binary(), "doctor", "--json", "--target", lab.SERVER, "--runtime-dir",
                           running.runtime_directory]).stdout
    finding = next(json.loads(line) for line in said.splitlines() if '"privileges"' in line)
    assert finding["verdict"] == "good", finding
    assert "clat-packets: no capability, system calls filtered" in finding["evidence"]
    assert f"{agent.binary().name[:15]}: CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN" in finding["evidence"]
    assert running.stop() == 0


def have(process, allowed, name=None):
    """Whether all threads of a process, or those of that name, have no more than these capabilities, nor a way to get more."""
    found = [thread for thread in threads(process) if name in (None, thread["Name"])]
    return found and all(capabilities(thread) | allowed == allowed and thread["NoNewPrivs"] == "1" for thread in found)


SILENT = "198.51.100.99"  # nobody has it
LOOKS = KEPT | 1 << DAC_READ_SEARCH | 1 << SYS_PTRACE
ASKS = 1 << NET_RAW | 1 << SYS_ADMIN


def test_the_doctor_keeps_what_it_needs(lab):
    running = lab.agent()
    running.wait_for("on")
    running.process.send_signal(signal.SIGSTOP)
    with lab.laptop.popen([agent.binary(), "doctor", "--json", "--target", SILENT, "--runtime-dir", running.runtime_directory],
                          stdout=subprocess.PIPE) as doctor:
        try:
            # While it waits for the agent's word it looks at the host.
            wait_until(lambda: have(doctor.pid, LOOKS), timeout=4, what="a doctor that looks")
        finally:
            running.process.send_signal(signal.SIGCONT)
        wait_until(lambda: have(doctor.pid, ASKS), timeout=20, interval=0.005, what="a doctor that asks")
        # So it stays while it listens.
        samples = 0
        while doctor.poll() is None:
            found = threads(doctor.pid)
            samples += len(found)
            for thread in found:
                assert capabilities(thread) & ~ASKS == 0 and thread["NoNewPrivs"] == "1", thread
                # Who has given CAP_SETPCAP up cannot lower it any more; it is of no use to who gets no new privileges.
                assert int(thread["CapBnd"], 16) & ~LOOKS == 0, thread
        findings = {finding["link"]: finding for finding in map(json.loads, doctor.stdout.read().splitlines())}
    assert samples > 20 and findings["NAT64"]["verdict"] == "broken"
    for link in ("kernel", "privileges", "routers", "neighbour"):
        assert findings[link]["verdict"] == "good", findings
    assert running.stop() == 0


def test_a_probe_keeps_raw_sockets_and_nothing_else(lab):
    with lab.laptop.popen([agent.binary(), "probe", "eth0"], stdout=subprocess.PIPE) as probe:
        wait_until(lambda: have(probe.pid, 1 << NET_RAW), interval=0.005, what="a probe that asks")
        assert "2001:db8:64::/96" in probe.stdout.read() and probe.wait() == 0


def test_a_capture_and_an_echo_listen_without_any_privilege(lab, tmp_path):
    (tmp_path / "config.toml").write_text(f'check-address = "{SILENT}"\n')
    running = lab.agent("--config", str(tmp_path / "config.toml"))
    running.wait_for("on")
    with lab.laptop.popen([agent.binary(), "capture", "eth0", "--output", tmp_path / "clat.pcapng", "--seconds", "60", "--runtime-dir",
                           running.runtime_directory], stderr=subprocess.PIPE) as capture:
        assert "capturing" in capture.stderr.readline()
        assert have(capture.pid, 0) and all(int(thread["CapBnd"], 16) == 0 for thread in threads(capture.pid))
        lab.laptop.run(["ping", "-n", "-c1", "-W5", lab.SERVER], check=True)
        capture.send_signal(signal.SIGINT)
        assert " packets captured" in capture.stderr.read() and capture.wait() == 0
    assert (tmp_path / "clat.pcapng").stat().st_size > 500
    # It asks for a second each time, and begins with what its maker has.
    wait_until(lambda: have(running.process.pid, 0, "echo"), timeout=60, interval=0.005, what="an echo thread")
    assert running.stop() == 0


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not here")
def test_the_doctor_tells_of_a_thread_with_too_much(lab):
    """One whose packet thread has no filter, as the kernel refuses seccomp(2)."""
    running = lab.agent(wrapper=["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "inject=seccomp:error=ENOSYS"])
    running.wait_for("on", timeout=60)
    assert "no filter of system calls: seccomp: Function not implemented" in running.interface()["datapath"]["detail"]
    said = lab.laptop.run([agent.binary(), "doctor", "--json", "--runtime-dir", running.runtime_directory]).stdout
    finding = next(json.loads(line) for line in said.splitlines() if '"privileges"' in line)
    assert finding["verdict"] == "notice" and "clat-packets has no filter of system calls" in finding["evidence"]
    assert running.stop(timeout=60) == 0


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not here")
def test_a_packet_thread_that_makes_another_call_ends_the_agent_with_a_sentence(lab):
    running = lab.agent()
    running.wait_for("on")
    thread = next(thread for thread in threads(running.process.pid) if thread["Name"] == "clat-packets")
    # The kernel asks the tracer first and the filter then: the thread's next read becomes another, harmless call.
    tracer = subprocess.Popen(
        ["strace", "-qq", "-o", "/dev/null", "-p", thread["Pid"], "-e", "inject=read:syscall=getppid:retval=0"],
        stderr=subprocess.PIPE, text=True)
    assert running.wait() == 70, running.log + tracer.communicate()[1]
    tracer.wait()
    assert "which its filter forbids" in running.log and "please report it" in running.log
    assert "made system call 110," in running.log or os.uname().machine != "x86_64"
    # And the kernel took all away, as after any other end.
    wait_until(lambda: "clat-" not in lab.laptop.run(["ip", "link"]).stdout, what="the links' end")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not here")
def test_the_unit_is_judged_well(tmp_path):
    unit = tmp_path / "clat-agent.service"
    unit.write_text((agent.REPOSITORY / "contrib/systemd/clat-agent.service").read_text().replace("@SBINDIR@", "/usr/sbin"))
    # The threshold is ten times the figure: 3.0.
    result = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=30", "--no-pager", unit],
                            capture_output=True, text=True)
    print(result.stdout.splitlines()[-1])
    assert result.returncode == 0, result.stdout + result.stderr
