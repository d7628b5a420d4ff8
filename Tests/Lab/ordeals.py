"""What the agent is at while a system call of its fails: each is a lab of its own for any number of faults, one after the other.

A fault that was survived left a state that has a name, and nothing open or standing that was not before; after it IPv4 works by itself,
by the datapath of before.
"""

import collections
import contextlib
import re
import subprocess
import sys
import time

import refusing
import snapshot
from agent import binary
from faults import Faulty, Tampering, descriptors, threads
from fdstore import DescriptorStore
from lab import Lab
from namespace import wait_until

# What the agent may end with, when a call that it cannot do without fails: refused, no control socket; and for some errors no feature,
# another agent, no capability. Only with the first two does a service manager try again.
ENDS = {71, 73}
ENDS_OF = {"ENODEV": 69, "EADDRINUSE": 75, "EAGAIN": 75, "EPERM": 77, "EACCES": 77}
# What the kernel says where it does not have eBPF for us, which is not asked for again.
REFUSALS = {"EPERM", "EINVAL"}
# Sockets of what stands in where eBPF is refused: of the guard's nftables table, of the path by routes.
TABLE_SOCKETS, PATH_SOCKETS = 1, 2
# Seconds for which a fault that is there for good is there.
SPELL = 2


class Fault(collections.namedtuple("Fault", "call error when path", defaults=[None])):
    """`when` is strace's: `3` is the third call of each thread, `3+` that and all later ones."""

    @property
    def is_lasting(self):
        return self.when.endswith("+")

    def __str__(self):
        return f"{self.call} {self.error} {self.when}" + (f" {self.path.rpartition('/')[2]}" if self.path else "")


class Scenario:
    """What the agent is at. One lab for many faults, which all leave it as it was. `begin` gives an agent that works; `suffer`
    is one fault from start to end."""

    options, datapath, kind = {}, None, "kernel"

    def __init__(self):
        self.exit = contextlib.ExitStack()
        self.lab = self.exit.enter_context(Lab(**self.options))
        self.prepare()
        self.before = snapshot.take(self.lab.laptop)
        self.agent = self.begin()
        self.rehearse()
        self.usual = self.held()
        self.finish()
        self.used = 0

    def prepare(self):
        pass

    def rehearse(self):
        """Once without a fault: what stays open from then on is no leak."""

    def begin(self, **options):
        agent = self.lab.agent(datapath=self.datapath, **options)
        agent.wait_for("on")
        return agent

    def held(self):
        """What the agent has open, and its threads. The shortest of some, as it may be closing what the last question was asked by."""
        process = self.agent.process.pid
        return min(((time.sleep(0.02) or descriptors(process), threads(process)) for _ in range(20)), key=lambda pair: len(pair[0]))

    def finish(self):
        """It stops, and all is as before."""
        assert self.agent.stop() == 0, self.agent.log
        snapshot.wait_for(self.lab.laptop, self.before)
        self.agent = None

    def close(self):
        self.exit.close()

    # What each does.

    def tamper(self, fault):
        """A context manager in which the fault happens; sets `agent`. What the thread that moves packets calls as well fails in the main
        thread alone: the other's filter does not know the call that strace makes of one that is to fail."""
        thread = "clat-agent" if fault.call in ("read", "write") else None
        return Tampering(self.agent, fault.call, fault.error, fault.when, fault.path, thread)

    def provoke(self):
        """Begins what is to fail."""

    def settled(self, fault):
        """What it has come to, in words, once it has; the agent is not stopped."""
        entry = self.agent.interface()
        named = entry and (self.is_well(entry) or entry["reason"]["code"] == "step-failed")
        return entry["reason"]["sentence"] if named else None

    def suffer(self, fault):
        """Whether the fault was reached, how often, and what came of it."""
        with self.tamper(fault) as tampering:
            self.provoke()
            outcome = self.await_outcome(fault)
            tampering.heal()
            if outcome is None:
                outcome = self.ended(fault)
            else:
                self.recover(fault)
            return tampering.injected, outcome

    def await_outcome(self, fault):
        """The words, None where the agent ended. While calls fail for good nothing need answer, so then only time passes."""
        def outcome():
            if self.agent.process.poll() is not None:
                return "ended"
            try:
                return self.settled(fault)
            except AssertionError:
                return "ended" if self.agent.process.poll() is not None else None
        if fault.is_lasting:
            with contextlib.suppress(TimeoutError):
                wait_until(lambda: self.agent.process.poll() is not None, timeout=SPELL, what="the end")
            said = "ended" if self.agent.process.poll() is not None else self.last_words()
        else:
            said = wait_until(outcome, timeout=25, what="a state that has a name")
        return None if said == "ended" else said

    def last_words(self):
        return (self.agent.log.strip().splitlines() or ["nothing said"])[-1]

    def ended(self, fault):
        """With a status and a sentence; nothing of it is left."""
        status, log = self.agent.wait(), self.agent.log
        self.agent = None
        assert status in ENDS | {ENDS_OF.get(fault.error)}, f"status {status}\n{log}"
        said = log.strip().splitlines()[-1]
        assert re.match("clat-agent: .+", said) and "Fatal" not in log, log
        snapshot.wait_for(self.lab.laptop, self.before)
        return f"ended with {status}: {said}"

    def recover(self, fault):
        """By itself."""
        agent = self.agent
        entry = agent.wait_until(self.is_well, "as it should be", timeout=90)
        assert "1 received" in self.lab.laptop.run(["ping", "-n", "-c1", "-W5", Lab.SERVER]).stdout, agent.log
        if fault.call != "bpf" or fault.error not in REFUSALS:
            assert entry["datapath"]["kind"] == self.kind, f"{entry['datapath']}\n{agent.log}"
        assert "Fatal" not in agent.log, agent.log
        self.check_held(TABLE_SOCKETS * (fault.call in ("bpf", "fcntl")) + PATH_SOCKETS * (entry["datapath"]["kind"] != self.kind))
        self.end()

    def check_held(self, substitutes):
        """Nothing is open that was not, but for so many sockets of what stands in."""
        # Namespaces that were given up go with a moment's delay, and so does what a client of the control socket had.
        process = self.agent.process.pid

        def surplus():
            now = (descriptors(process), threads(process))
            allowed = [collections.Counter({"socket:[N]": substitutes}), collections.Counter()]
            return [dict(collections.Counter(has) - collections.Counter(had) - more)
                    for had, has, more in zip(self.usual, now, allowed)]
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not any(surplus()), timeout=5, what="what it had")
        assert not any(surplus()), f"what it had not before: {surplus()}\n{self.agent.log}"

    def is_well(self, entry):
        return entry["state"] == "on"

    def end(self):
        """After each fault."""
        self.finish()


class Start(Scenario):
    """From the program's first call on, with directories that are new."""

    def tamper(self, fault):
        self.used += 1
        options = {"datapath": self.datapath} if self.datapath else {}
        faulty = Faulty(self.lab, fault.call, fault.error, fault.when, fault.path,
                        "--state-dir", str(self.lab.directory / f"state-{self.used}"), **options)
        self.agent = faulty.agent
        return faulty


class Routes(Start):
    """The same where the kernel refuses eBPF."""

    datapath, kind = "routes", "userspace"


class Resolver(Start):
    """The same where a resolver alone names the NAT64."""

    options = {"advertise": False}

    def prepare(self):
        self.lab.start_dns64()


class Running(Scenario):
    """One agent for some faults; for the more of them the longer it waits before it tries again."""

    most = 25

    def end(self):
        self.used += 1
        if self.used % self.most == 0:
            self.finish()

    def suffer(self, fault):
        if self.agent is None:
            self.agent = self.begin()
        outcome = super().suffer(fault)
        # What the kernel refused once is not asked for again.
        if self.agent and fault.call == "bpf" and fault.error in REFUSALS:
            self.finish()
        return outcome

    def close(self):
        try:
            if self.agent:
                self.finish()
        finally:
            super().close()


class Renumbering(Running):
    """The link gets another prefix, and the CLAT another address."""

    number, most = 0, 2

    def prepare(self):
        # The host's own addresses stay as they are.
        self.lab.laptop.sysctl(ipv6__conf__eth0__accept_ra_pinfo=0)

    def rehearse(self):
        self.provoke()
        self.agent.wait_until(self.is_well, "the new address")

    def provoke(self):
        old, self.number = self.number, self.number + 1
        self.prefix = f"2001:db8:7{self.number:03x}:"
        self.lab.site.renumber(f"2001:db8:7{old:03x}::/64" if old else self.lab.site.lan, f"{self.prefix}:/64", valid=1)

    def is_well(self, entry):
        return entry["state"] == "on" and (entry["ipv6Address"] or "").startswith(self.prefix)


class Stop(Scenario):
    """SIGTERM: it ends whatever fails, and nothing is left."""

    def suffer(self, fault):
        self.agent = self.begin()
        with self.tamper(fault) as tampering:
            self.agent.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.agent.wait(timeout=SPELL if fault.is_lasting else 20)
            reached = tampering.injected
        status, log, said = self.agent.wait(), self.agent.log, self.last_words()
        self.agent = None
        assert status == 0 and "Fatal" not in log, f"status {status}\n{log}"
        snapshot.wait_for(self.lab.laptop, self.before)
        return reached, said


class Restart(Running):
    """The program begins anew in its process, beside a service manager that keeps its descriptors."""

    def prepare(self):
        self.manager = self.exit.enter_context(DescriptorStore(self.lab.directory))

    def begin(self):
        agent = self.manager.start(self.lab)
        agent.wait_for("on")
        return agent

    def rehearse(self):
        self.provoke()
        assert self.command.wait(20) == 0, self.agent.log
        self.agent.wait_for("on")

    def provoke(self):
        self.command = self.lab.laptop.popen(
            [binary(), "reexec", "--runtime-dir", self.agent.runtime_directory], stdout=-1, stderr=-2)

    def settled(self, fault):
        if self.command.poll() is None:
            return None
        said = self.command.stdout.read().strip()
        assert self.command.returncode in (0, 2), said
        return said or None

    def suffer(self, fault):
        try:
            return super().suffer(fault)
        finally:
            self.command.kill()
            self.command.communicate()

    def recover(self, fault):
        super().recover(fault)
        assert not self.manager.faults, self.manager.faults

    def ended(self, fault):
        # What the manager keeps goes on until it lets go of it.
        self.manager.release()
        return super().ended(fault)

    def finish(self):
        assert self.agent.stop() == 0, self.agent.log
        time.sleep(0.1)  # until the manager has read all that it was told
        self.manager.release()
        snapshot.wait_for(self.lab.laptop, self.before)
        self.agent = None


class Packets(Scenario):
    """A call of the thread that moves packets, the third of them: one is lost, or the thread is started anew. It has no filter here: to
    make a call fail strace makes it one that the filter does not know."""

    datapath, kind, thread, faults = "userspace", "userspace", "clat-packets", ["read-faults", "write-faults"]

    def begin(self):
        agent = self.lab.agent(datapath=self.datapath, wrapper=[sys.executable, "-B", refusing.__file__, "seccomp"])
        agent.wait_for("on")
        return agent

    def suffer(self, fault):
        self.agent = self.begin()
        with Tampering(self.agent, fault.call, fault.error, fault.when, thread=self.thread) as tampering:
            wait_until(lambda: self.lab.laptop.run(["ping", "-n", "-c3", "-i0.01", "-W1", Lab.SERVER]) and tampering.injected, what="the fault")
            time.sleep(SPELL if fault.is_lasting else 0)
            reached = tampering.injected
        self.agent.wait_for("on", timeout=60)
        wait_until(lambda: "1 received" in self.lab.laptop.run(["ping", "-n", "-c1", "-W1", Lab.SERVER]).stdout, timeout=20, what="IPv4")
        counters, starts = self.agent.interface()["counters"], self.agent.log.count("IPv4 works")
        self.recover(fault)
        return reached, ", ".join(f"{name} {counters[name]}" for name in self.faults) + f", {starts} starts"


class PacketsByRoutes(Packets):
    """The same where the kernel refuses eBPF."""

    datapath = "routes"


class RelayedPackets(Packets):
    """A call of the thread that moves packets between the CLAT and a link without neighbours."""

    options, datapath, kind = {"kind": "tun"}, None, "kernel"
    thread, faults = "clat-relay", ["relay-read-faults", "relay-write-faults"]


SCENARIOS = {
    "start": Start, "routes": Routes, "resolver": Resolver, "renumbering": Renumbering, "stop": Stop, "restart": Restart,
    "packets": Packets, "packets-by-routes": PacketsByRoutes,
    "packets-relayed": RelayedPackets}


@contextlib.contextmanager
def scenarios():
    """Gives a scenario by name, made when it is first wanted, or anew; only the last is kept."""
    present = {}

    def close():
        for name in list(present):
            scenario = present.pop(name)
            with contextlib.suppress(Exception):
                scenario.close()

    def give(name, anew=False):
        if anew or name not in present:
            close()
        if anew:
            return None
        if name not in present:
            present[name] = SCENARIOS[name]()
        return present[name]
    try:
        yield give
    finally:
        close()
