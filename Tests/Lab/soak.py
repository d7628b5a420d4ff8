#!/usr/bin/python3
"""Hours in minutes: traffic without end while the network is renumbered, flooded, cut and restarted at random.

    soak.py --minutes N [--seed N]     ends with the deltas, and "N passed, N failed"

At the end the agent must have what it had at the start: memory, descriptors, threads, namespaces, links, addresses, routes, eBPF
programs; and move as many octets a second. Once it has stopped, the host must be what it was.
"""

import argparse
import os
import pathlib
import random
import signal
import statistics
import sys
import time

import forge
import probe
import ra
import snapshot
from agent import binary
from faults import descriptors
from fdstore import DescriptorStore
from lab import Lab
from namespace import wait_until

TRANSFER = 20_000_000


def memory(process):
    """KiB that are the process's own."""
    text = pathlib.Path(f"/proc/{process}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_Dirty"))


def eBPF(process):
    """Programs, maps and links that the process holds in the kernel."""
    return sum("bpf" in name for name in descriptors(process))


class Soak:
    def __init__(self, lab, chance, manager, mallory):
        self.lab, self.chance, self.manager, self.mallory = lab, chance, manager, mallory
        self.agent = manager.start(lab)
        self.agent.wait_for("on", timeout=60)
        self.pinger = probe.Pinger(lab.laptop, Lab.SERVER)
        self.done = {}

    def works(self):
        """IPv4 works, after a while."""
        self.agent.wait_for("on", timeout=60)

        def answered():
            sequence = self.pinger.send()
            return sequence and self.pinger.reply(sequence, 1)
        wait_until(answered, timeout=30, what="IPv4")

    def throughput(self):
        """Octets a second of a download, the median of five."""
        rates = []
        for _ in range(5):
            begun = time.monotonic()
            self.lab.laptop.run(["curl", "-sS", "-o", "/dev/null", "--max-time", "60", f"http://{Lab.SERVER}/{TRANSFER}"], check=True)
            rates.append(TRANSFER / (time.monotonic() - begun))
        return statistics.median(rates)

    def state(self):
        """What must not grow."""
        process = self.agent.process.pid
        link = self.lab.laptop.run(["ip", "-o", "link"], check=True).stdout.count("\n")
        address = self.lab.laptop.run(["ip", "-o", "-4", "address"], check=True).stdout.count("\n")
        route = self.lab.laptop.run(["ip", "-4", "route", "show", "table", "all"], check=True).stdout.count("\n")
        return {"descriptors": len(descriptors(process)), "threads": len(os.listdir(f"/proc/{process}/task")), "links": link,
                "IPv4 addresses": address, "IPv4 routes": route, "eBPF": eBPF(process),
                "namespaces": self.lab.laptop.run(["ip", "netns", "list-id"], check=True).stdout.count("nsid")}

    # What happens. Each leaves the network as it was, or as another is.

    def traffic(self):
        self.throughput()

    def withdrawal(self):
        """The NAT64 goes, and comes back."""
        router, pref64 = self.lab.site.router, self.lab.site.pref64
        router.advertiser.advertise(router.advertisement(extra=[ra.pref64(pref64, lifetime=0)]))
        try:
            self.agent.wait_for("off", timeout=30)
        finally:
            router.advertiser.advertise(router.advertisement([pref64]))

    def renumbering(self):
        """Another PREF64 of the same NAT64's router is told for a moment, and preferred no longer."""
        router, pref64 = self.lab.site.router, self.lab.site.pref64
        router.advertiser.send(router.advertisement([pref64], extra=[ra.prefix_information(
            "2001:db8:77::/64", valid=20, preferred=10), ra.pref64("2001:db8:99::/96", lifetime=16)]))

    def flood(self):
        packets = [ra.RouterAdvertisement(source=f"fe80::bad:{n:x}", lifetime=0, preference="low", options=[
            ra.prefix_information(f"2001:db8:{n:x}::/64", valid=30, preferred=0)]).packet() for n in range(1, 32)]
        with forge.Forger(self.mallory, "eth0", "33:33:00:00:00:01") as forger:
            for _ in range(100):
                forger.send(*packets, everybody=True)

    def carrier(self):
        self.lab.switch.ip("link set laptop down")
        try:
            self.agent.wait_for("off", timeout=30)
        finally:
            self.lab.switch.ip("link set laptop up")

    def link_down(self):
        self.lab.laptop.ip("link set eth0 down")
        try:
            self.agent.wait_for("off", timeout=30)
        finally:
            self.lab.laptop.ip("link set eth0 up")

    def theft(self):
        """Somebody removes our device."""
        self.lab.laptop.ip("link delete clat-eth0")

    def reload(self):
        self.agent.process.send_signal(signal.SIGHUP)

    def clients(self):
        for _ in range(20):
            self.agent.status()

    def switch(self):
        for word in ("disable", "enable"):
            self.lab.laptop.run([binary(), word, "--runtime-dir", self.agent.runtime_directory, "eth0"], check=True)

    def stop(self):
        """It ends as it should, and what the manager kept of it goes."""
        status = self.agent.stop()
        time.sleep(0.1)  # until the manager has read all that it was told
        self.manager.release()
        assert status == 0, self.agent.log

    def restart(self):
        """SIGTERM or SIGKILL, if it has not ended by itself, and another one in its place, which takes over what the manager kept, or
        finds nothing."""
        if self.agent.process.poll() is None and self.chance.random() < 0.5:
            assert self.agent.stop() == 0, self.agent.log
        else:
            self.agent.kill()
        time.sleep(0.1)
        if self.chance.random() < 0.5:
            self.manager.release()
            wait_until(lambda: "clat-eth0" not in self.lab.laptop.run(["ip", "link"]).stdout, what="the old one's end")
        self.agent = self.manager.start(self.lab, again=self.agent)

    def reexec(self):
        self.lab.laptop.run([binary(), "reexec", "--runtime-dir", self.agent.runtime_directory], check=True)

    ACTIONS = [traffic, withdrawal, renumbering, flood, carrier, link_down, theft, reload, clients, switch]
    RESTARTS = [restart, reexec]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    print(f"seed {arguments.seed}, {arguments.minutes:g} minutes", flush=True)
    faults, trail = [], []
    with Lab() as lab, DescriptorStore(lab.directory) as manager:
        mallory = lab.add_host("mallory")
        clean = snapshot.take(lab.laptop)
        soak = Soak(lab, chance, manager, mallory)
        soak.works()

        def attempt(action):
            try:
                action(soak)
                soak.works()
            except Exception as error:  # whatever it is, the soak goes on and tells at the end
                faults.append(f"{action.__name__}: {error}")
                print(f"FAILED {faults[-1]}", "after", trail[-5:], flush=True)
                if soak.agent.process.poll() is not None:
                    soak.restart()
            trail.append(action.__name__)
            soak.done[action.__name__] = soak.done.get(action.__name__, 0) + 1

        def live(actions, seconds):
            """Each once, and then at random for so long."""
            for action in actions:
                attempt(action)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                attempt(chance.choice(actions))

        # What is allocated once is not a leak.
        live(Soak.RESTARTS + Soak.ACTIONS, 0)
        before, rate = soak.state(), soak.throughput()
        print(f"at the start: {before}, {rate * 8 / 1e6:.0f} Mbit/s", flush=True)
        live(Soak.ACTIONS + Soak.RESTARTS, arguments.minutes * 30)
        # The second half is without restarts, so that a leak of the agent's own shows; the last of them has done each by then.
        live(Soak.ACTIONS, 0)
        size = memory(soak.agent.process.pid)
        live(Soak.ACTIONS, arguments.minutes * 30)
        # What drains after a renumbering, and what a client had, goes with a moment's delay.
        try:
            wait_until(lambda: soak.state() == before, timeout=30, interval=0.5, what="the state of the start")
        except TimeoutError:
            faults.append(f"it is {soak.state()} and was {before}")
        grown, after = memory(soak.agent.process.pid) - size, soak.throughput()
        print(f"done: {', '.join(f'{name} {count}' for name, count in sorted(soak.done.items()))}")
        print(f"at the end: {soak.state()}, memory {grown:+d} KiB of {size} since the last restart, {after * 8 / 1e6:.0f} Mbit/s")
        if grown > 2048:
            faults.append(f"memory grew by {grown} KiB")
        if after < rate * 0.7:
            faults.append(f"throughput fell from {rate * 8 / 1e6:.0f} to {after * 8 / 1e6:.0f} Mbit/s")
        status = soak.agent.interface()
        print(f"refused: {status['refusedAdvertisements']}")
        try:
            soak.stop()
            # The kernel forgets a false router's prefix after half a minute.
            snapshot.wait_for(lab.laptop, clean, timeout=60)
        except AssertionError as error:
            faults.append(f"it did not stop as it should: {error}")
    for fault in faults:
        print(f"FAILED {fault}")
    total = sum(soak.done.values()) + 3
    print(f"{total - len(faults)} passed, {len(faults)} failed")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
