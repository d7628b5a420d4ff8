"""Who is measured, and on what: each contestant has a line of its own, and all lines are alike, so that all can stand at
once and each round measures them moments apart.

A line is a laptop and a router, joined by a veth, `eth0` in the laptop. The router has PREF64::198.51.100.1 on its
loopback, so a packet to the NAT64 is at its goal there: it is a native IPv6 server, and no NAT64 is measured. A
contestant carries the laptop's packets through a namespace of its own: a veth from the laptop, and on `eth0` an ipvlan
for clat-agent (where the kernel has none, a macvlan), for the others a macvlan.
"""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "Tests/Lab"))

import namespace  # noqa: E402
import ra  # noqa: E402
from agent import Agent  # noqa: E402
from network import synthesise  # noqa: E402

PREFIX = "clatbench-"
# Not the well-known prefix: Debian's tayga refuses that one for addresses which are not global.
PREF64 = "2001:db8:64::/96"
LAN = "2001:db8:1::"
# Routed to the middle namespace: the translator's address there, or that of the laptop where nothing is translated.
BEHIND = "2001:db8:a::"
SERVER = "198.51.100.1"
FAR_SERVER = "198.51.100.2"
IPERF_PORT, TRAFFIC_PORT = 5201, 6464


def traffic_tool():
    """The Swift half of this benchmark."""
    return REPOSITORY / ".build/release/translator-bench"


def clean():
    """Removes what benchmarks left whose process is gone."""
    def is_left(entry):
        owner = entry.name.removeprefix(PREFIX).partition("-")[0]
        return owner.isdigit() and not pathlib.Path("/proc", owner).exists()
    namespace.remove([entry.name for entry in namespace.NETNS.glob(PREFIX + "*") if is_left(entry)])
    for directory in filter(is_left, pathlib.Path(tempfile.gettempdir()).glob(PREFIX + "*")):
        shutil.rmtree(directory, ignore_errors=True)


class Line:
    """A laptop, a router, and the servers in it."""

    def __init__(self, name, directory):
        self.prefix = f"{PREFIX}{os.getpid()}-{name}-"
        self.directory = directory / name
        self.directory.mkdir()
        self._spaces, self._processes = [], []
        self._advertiser = None
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _create(self, name):
        space, = namespace.create([self.prefix + name])
        self._spaces.append(space)
        # What TCP learned in one run is not to help or hurt the next.
        space.sysctl(
            ipv6__conf__all__accept_dad=0, ipv6__conf__default__accept_dad=0, ipv4__tcp_no_metrics_save=1,
            ipv6__icmp__ratelimit=0)
        space.ip("link set lo up")
        return space

    def _build(self):
        self.laptop, self.router = self._create("laptop"), self._create("router")
        self.router.sysctl(ipv6__conf__all__forwarding=1)
        self.router.ip(f"""
            addr add {synthesise(PREF64, SERVER)}/128 dev lo nodad
            link add lan type veth peer name eth0 netns {self.laptop.name}
            link set lan addrgenmode none address 02:64:00:00:00:01 up
            addr add fe80::1/64 dev lan nodad
            addr add {LAN}1/64 dev lan nodad
        """)
        self.laptop.ip("link set eth0 up")
        self.router.ip(f"route add {BEHIND}/64 via fe80::2 dev lan")
        self._serve(self.router)
        self._advertiser = ra.Advertiser(self.router, "lan")
        # Said once, and in answer to solicitations: the measurements are not to be disturbed.
        self._advertiser.advertise(ra.RouterAdvertisement(options=[
            ra.source_link_layer_address("02:64:00:00:00:01"), ra.mtu(1500), ra.prefix_information(f"{LAN}/64"),
            ra.pref64(PREF64, lifetime=65528)], lifetime=9000), interval=3600)
        # Scope 0 is global.
        namespace.wait_until(lambda: any(
            line.split()[3] == "00" and line.split()[5] == "eth0"
            for line in self.laptop.read("net/if_inet6").splitlines()), what="the laptop's address")

    def _serve(self, space):
        self.start(space, ["iperf3", "-s", "-p", IPERF_PORT], "iperf3")
        self.start(space, [traffic_tool(), "serve", TRAFFIC_PORT], "traffic")

    def start(self, space, command, name):
        """Starts a process that lives as long as the line; its output goes to a file."""
        with open(self.directory / f"{name}-{len(self._processes)}.log", "w") as log:
            process = space.popen(command, stdout=log, stderr=subprocess.STDOUT)
        self._processes.append(process)
        return process

    def middle(self):
        """The namespace between laptop and router, with links like clat-agent's: `host` to the laptop, `uplink`."""
        space = self._create("middle")
        space.sysctl(
            ipv6__conf__all__forwarding=1, ipv4__ip_forward=1, ipv4__conf__all__rp_filter=0,
            ipv4__conf__default__rp_filter=0)
        # An ipvlan takes in only what is for an address of its own, and what comes for those behind this is not.
        self.laptop.ip(f"link add uplink link eth0 netns {space.name} type macvlan mode bridge")
        self.laptop.ip(f"link add clat-eth0 type veth peer name host netns {space.name}")
        space.ip(f"""
            link set uplink addrgenmode none up
            addr add fe80::2/64 dev uplink nodad
            addr add {LAN}2/64 dev uplink nodad
            route add default via fe80::1 dev uplink
            link set host addrgenmode none up
            addr add fe80::464/64 dev host nodad
        """)
        self.laptop.ip("link set clat-eth0 up")
        return space

    def translating_middle(self):
        """The same for a translator with a TUN of its own, which is called `tun`: 192.0.0.1 in the laptop is to become
        `BEHIND`1."""
        space = self.middle()
        space.ip(f"""
            addr add 192.0.0.3/29 dev host
            tuntap add tun mode tun
            link set tun up
            route add 192.0.0.2/32 dev tun
            route add default dev tun mtu 1480
            route add {BEHIND}/64 dev tun
        """)
        self.laptop.ip("""
            addr add 192.0.0.1/29 dev clat-eth0
            route add default via 192.0.0.3 dev clat-eth0 mtu 1480
        """)
        return space

    def add_bottleneck(self, rate):
        """A further server behind the router, and a narrow link to it, both ways; it buffers 50 ms."""
        far = self._create("far")
        self.router.ip(f"""
            link add far type veth peer name eth0 netns {far.name}
            link set far addrgenmode none up
            addr add fe80::1/64 dev far nodad
        """)
        far.ip(f"""
            addr add {synthesise(PREF64, FAR_SERVER)}/128 dev lo nodad
            link set eth0 addrgenmode none up
            addr add fe80::2/64 dev eth0 nodad
            route add default via fe80::1 dev eth0
        """)
        self.router.ip(f"route add {synthesise(PREF64, FAR_SERVER)} via fe80::2 dev far")
        for space, link in ((self.router, "far"), (far, "eth0")):
            space.run(["tc", "qdisc", "add", "dev", link, "root", "tbf", "rate", rate, "burst", "64kb", "latency", "50ms"],
                      check=True)
        self._serve(far)

    def close(self):
        """Ends its processes and removes its namespaces."""
        namespace.remove([space.name for space in self._spaces])
        if self._advertiser:
            self._advertiser.close()
        for process in self._processes:
            process.wait()
        for space in self._spaces:
            space.close()


@dataclasses.dataclass
class Running:
    """A contestant that carries packets: where the laptop reaches the servers, and the process if it has one."""

    line: Line
    server: str
    far: str
    process: subprocess.Popen | None = None


def plain(line):
    """No translation: IPv6 forwarded by the kernel of the middle namespace."""
    space = line.middle()
    space.ip(f"route add {BEHIND}/64 dev host")
    line.laptop.ip(f"""
        addr add {BEHIND}1/64 dev clat-eth0 nodad
        route add {PREF64} via fe80::464 dev clat-eth0 src {BEHIND}1
    """)
    return Running(line, synthesise(PREF64, SERVER), synthesise(PREF64, FAR_SERVER))


def _agent(line, datapath):
    running = Agent(
        line.laptop, line.directory / "agent", "--interface", "eth0", "--datapath", datapath, "--state-dir",
        line.directory / "state")
    line._processes.append(running.process)
    running.wait_for("on", timeout=30)
    return Running(line, SERVER, FAR_SERVER, running.process)


def kernel(line):
    """clat-agent, its eBPF program."""
    return _agent(line, "kernel")


def userspace(line):
    """clat-agent, its TUN alone."""
    return _agent(line, "userspace")


def tayga(line):
    """Debian's tayga."""
    space = line.translating_middle()
    configuration = line.directory / "tayga.conf"
    configuration.write_text(
        f"tun-device tun\nipv4-addr 192.0.0.2\nipv6-addr {BEHIND}2\nprefix {PREF64}\nmap 192.0.0.1 {BEHIND}1\n")
    process = line.start(space, ["tayga", "--nodetach", "--config", configuration], "tayga")
    return Running(line, SERVER, FAR_SERVER, process)


def tundra(line):
    """tundra-nat64, as its own CLAT example sets it up, with its default of threads."""
    space = line.translating_middle()
    configuration = line.directory / "tundra.conf"
    empty = ("program.translator_threads", "program.chroot_dir", "program.privilege_drop_user",
             "program.privilege_drop_group", "io.tun.device_path", "io.tun.owner_user", "io.tun.owner_group")
    values = {
        "io.mode": "tun", "io.tun.interface_name": "tun", "router.ipv4": "192.0.0.2", "router.ipv6": f"{BEHIND}2",
        "addressing.mode": "clat", "addressing.nat64_clat.ipv4": "192.0.0.1",
        "addressing.nat64_clat.ipv6": f"{BEHIND}1", "addressing.nat64_clat_siit.prefix": PREF64.partition("/")[0],
        "addressing.nat64_clat_siit.allow_translation_of_private_ips": "yes", "translator.ipv4.outbound_mtu": "1500",
        "translator.ipv6.outbound_mtu": "1500", "translator.6to4.copy_dscp_and_ecn": "yes",
        "translator.4to6.copy_dscp_and_ecn": "yes"}
    lines = [f"{key} =" for key in empty] + [f"{key} = {value}" for key, value in values.items()]
    configuration.write_text("\n".join(lines) + "\n")
    # Its TUN has several queues, which one made by others has not.
    space.ip("link delete tun")
    space.run([_tundra(), "--config-file", configuration, "mktun"], check=True)
    space.ip(f"""
        link set tun up
        route add 192.0.0.2/32 dev tun
        route add default dev tun mtu 1480
        route add {BEHIND}/64 dev tun
    """)
    process = line.start(space, [_tundra(), "--config-file", configuration, "translate"], "tundra")
    return Running(line, SERVER, FAR_SERVER, process)


def _tundra():
    return shutil.which("tundra-nat64") or shutil.which("tundra")


def jool(line):
    """Jool's SIIT, a module of the kernel: it translates what the middle namespace forwards."""
    space = line.middle()
    space.ip("addr add 192.0.0.3/29 dev host")
    space.run(["jool_siit", "instance", "add", "clat", "--netfilter", "--pool6", PREF64], check=True)
    space.run(["jool_siit", "-i", "clat", "eamt", "add", "192.0.0.1/32", f"{BEHIND}1/128"], check=True)
    line.laptop.ip("""
        addr add 192.0.0.1/29 dev clat-eth0
        route add default via 192.0.0.3 dev clat-eth0 mtu 1480
    """)
    return Running(line, SERVER, FAR_SERVER)


def _has_jool():
    """Whether its module is loaded: `make bench-vm` has one."""
    return bool(shutil.which("jool_siit")) and pathlib.Path("/sys/module/jool_siit").exists()


# Names in the tables, in the tables' order. Another peer joins by a function like these.
CONTESTANTS = {
    "plain IPv6": plain, "plain IPv6 again": plain, "kernel path": kernel, "user-space path": userspace,
    **({"Jool": jool} if _has_jool() else {}),
    **({"tayga": tayga} if shutil.which("tayga") else {}), **({"tundra": tundra} if _tundra() else {}),
}
CONTROL, AGAIN = "plain IPv6", "plain IPv6 again"
