"""The lab: an IPv6-only network with a real NAT64 and an IPv4-only Internet behind it, all in namespaces of its own.

    with Lab() as lab:
        lab.laptop.run(["ping", "-c1", synthesise(lab.site.pref64, lab.SERVER)], check=True)

See README.md for the drawing. By hand: `python3 Tests/Lab/lab.py shell`; what killed runs left goes by
`python3 Tests/Lab/lab.py clean`. Needs root or `unshare --user --map-root-user --net --mount`; touches nothing but
namespaces named `clatlab-PID-NUMBER-...`.
"""

import atexit
import contextlib
import ipaddress
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import namespace
import refusing
import servers
from agent import Agent
from capture import Capture
from namespace import wait_until
from network import Site, synthesise
from worker import Worker

PREFIX = "clatlab-"
# The ways of packets to test: by eBPF, by it to user space, and to user space where the kernel refuses eBPF, as it does in
# every user namespace but the machine's.
DATAPATHS = ["routes"] if namespace.in_user_namespace() else ["kernel", "userspace", "routes"]
_HERE = pathlib.Path(__file__).resolve().parent
_serial = 0


class Lab:
    """The network, up from construction to `close`. `pref64` is the NAT64's prefix; the routers advertise it unless
    `advertise` is False, and then all but PREF64. `host_dad` makes the laptop's kernel do DAD for its own addresses,
    which costs two seconds and matters to few tests. `kind` is that of the first uplink: `veth`, or `macvlan`, as containers
    have it, on a device in another namespace; or without Ethernet and a switch, `tun` with IP packets alone, `ppp`
    (where the kernel has that) or `pppd` (with the programs that make it), or `noarp` as modems do that speak Ethernet and know no neighbours."""

    SERVER = "198.51.100.10"
    SERVERS = ["198.51.100.10", "203.0.113.10", "198.51.100.53"]
    DNS_SERVER = "198.51.100.53"
    # The host's own address is predictable: EUI-64 of this.
    LAPTOP_HARDWARE_ADDRESS = "02:64:00:00:00:10"

    def __init__(self, uplink="eth0", pref64=None, advertise=True, host_dad=False, kind="veth"):
        global _serial
        _serial += 1
        self.prefix = f"{PREFIX}{os.getpid()}-{_serial}-"
        self.uplink, self.kind = uplink, kind
        self.namespaces = []
        self._agents = 0
        namespace.prepare()
        clean()
        # A leftover that bears our own id is from a namesake long dead.
        namespace.remove([name for name in _names() if name.startswith(self.prefix)])
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=self.prefix))
        atexit.register(self.close)
        self._catch_sigterm()
        try:
            self._build(pref64, advertise, host_dad, kind)
        except BaseException:
            self.close()
            raise

    def _build(self, pref64, advertise, host_dad, kind):
        self.laptop, self.switch, self.internet, router, core, nat64 = self._create(
            "laptop", "switch", "internet", "router", "core", "nat64")
        if not host_dad:
            self.laptop.sysctl(ipv6__conf__all__accept_dad=0, ipv6__conf__default__accept_dad=0)
        self.site = Site(0, pref64)
        self.sites = [self.site]
        # A switch has no addresses and says nothing.
        self.switch.sysctl(ipv6__conf__all__disable_ipv6=1, ipv6__conf__default__disable_ipv6=1)
        with contextlib.suppress(FileNotFoundError):
            # Where the kernel has br_netfilter built in, a bridge would look into IP packets and drop what it finds
            # malformed.
            for table in ("arptables", "iptables", "ip6tables"):
                self.switch.sysctl(**{f"bridge__bridge-nf-call-{table}": 0})
        self.internet.sysctl(
            ipv6__conf__all__disable_ipv6=1, ipv6__conf__default__disable_ipv6=1, ipv4__icmp_ratelimit=0)
        self.internet.ip("link set lo up\n" + "\n".join(f"addr add {address}/32 dev lo" for address in self.SERVERS))
        self._servers = Worker(self.internet, servers.serve, self.SERVERS)
        if kind in ("tun", "ppp", "pppd", "noarp"):
            self._add_point_to_point_link(kind, router)
            self.site.plumb(None, router, core, nat64, self.internet)
        else:
            self._add_link(self.site, self.uplink, self.LAPTOP_HARDWARE_ADDRESS, kind)
            self.site.plumb(self.switch, router, core, nat64, self.internet)
        self.site.start(self.directory)
        self._servers.connection.recv()
        self._bring_up(self.site, self.uplink, advertise)

    def _create(self, *names):
        made = namespace.create([self.prefix + name for name in names])
        self.namespaces += made
        return made

    def _add_link(self, site, uplink, hardware_address, kind="veth"):
        # No snooping: in a switch without a querier it would only lose multicast.
        bridge, port, end = f"lan{site.suffix}", f"laptop{site.suffix}", f"{uplink} netns {self.laptop.name}"
        self.switch.ip(f"link add {bridge} up type bridge mcast_snooping 0")
        if kind == "veth":
            self.switch.ip(f"link add {port} master {bridge} up type veth peer name {end}")
        else:
            self.switch.ip(f"""
                link add {port} master {bridge} up type veth peer name wire
                link set wire up
                link add link wire name {end} type macvlan mode bridge
            """)
        self.laptop.ip(f"""
            link set lo up
            link set {uplink} address {hardware_address}
        """)

    def _add_point_to_point_link(self, kind, router):
        if kind != "noarp":
            self.laptop.ip("link set lo up")
            words = [kind, self.laptop.name, self.uplink, router.name, "lan"]
            self._modem = self.laptop.popen([sys.executable, "-B", _HERE / "modem.py", *words], stdout=subprocess.PIPE)
            if self._modem.stdout.readline() != "ready\n":
                raise RuntimeError("modem.py did not start")
            return
        # The kernel sends to its own address where it may not ask for the other's.
        address = f"address {self.LAPTOP_HARDWARE_ADDRESS}"
        self.laptop.ip(f"""
            link set lo up
            link add {self.uplink} {address} type veth peer name lan {address} netns {router.name}
            link set {self.uplink} arp off
        """)
        router.ip("link set lan arp off")

    def _bring_up(self, site, uplink, advertise):
        """The laptop's link comes up last, and its kernel learns all it has from the router."""
        self.laptop.ip(f"link set {uplink} up")
        if self.kind == "ppp":
            # As pppd does when both have agreed on their interface identifiers (RFC 5072).
            self.laptop.ip(f"address add fe80::10/64 dev {uplink}")
        site.router.advertiser.advertise(site.router.advertisement([site.pref64] if advertise else []))
        wait_until(lambda: self.host_address(uplink), what=f"an address on {uplink}")
        wait_until(lambda: any(
            line.split()[0] == line.split()[1].zfill(32) and line.split()[-1] == uplink
            for line in self.laptop.read("net/ipv6_route").splitlines()), what=f"a default route on {uplink}")

    def host_address(self, uplink="eth0"):
        """The laptop's own global address on an uplink, as text; None while there is none that is past its DAD."""
        for line in self.laptop.read("net/if_inet6").splitlines():
            address, _, _, scope, flags, name = line.split()
            # Scope 0 is global; flag 0x40 is IFA_F_TENTATIVE.
            if name == uplink and scope == "00" and not int(flags, 16) & 0x40:
                return str(ipaddress.IPv6Address(bytes.fromhex(address)))
        return None

    def add_site(self, uplink="eth1", pref64=None, advertise=True):
        """Gives the laptop a second uplink, to an operator with router, NAT64 and prefix of its own."""
        site = Site(len(self.sites), pref64)
        namespaces = self._create(*(name + site.suffix for name in ("router", "core", "nat64")))
        self.sites.append(site)
        self._add_link(site, uplink, f"02:64:00:00:{site.number:02x}:10")
        site.plumb(self.switch, *namespaces, self.internet)
        site.start(self.directory)
        self._bring_up(site, uplink, advertise)
        return site

    def add_router(self, site=None):
        """Puts one more router on an uplink's link. It is silent until told: `router.advertiser.advertise(...)`."""
        site = site or self.site
        router, = self._create(f"router{len(site.routers) + 1}{site.suffix}")
        return site.attach_router(self.switch, router)

    def add_host(self, name="host", site=None):
        """Puts one more host on an uplink's link, interface `eth0`; an empty namespace, up, with what its kernel gets
        from RAs."""
        site = site or self.site
        host, = self._create(name)
        self.switch.ip(f"link add {name} master lan{site.suffix} up type veth peer name eth0 netns {host.name}")
        host.ip("link set lo up\nlink set eth0 up")
        return host

    def start_dns64(self, site=None):
        """Starts a DNS64 on the router and waits until it answers."""
        site = site or self.site
        site.start_dns64(self.directory)
        query = ["dig", f"@{site.resolver}", "+short", "+time=1", "+tries=1", "www.example.com", "A"]
        wait_until(lambda: self.SERVER in self.laptop.run(query).stdout, what="the DNS64")

    def agent(
            self, *arguments, interfaces=None, wrapper=(), again=None, datapath=None, refused=None, **options):
        """Starts `clat-agent run` in the laptop for `interfaces`, by default the uplink; none at all names none.
        `again` is an agent whose runtime directory this one takes over; `wrapper` are words before the command.
        `datapath` is one of DATAPATHS. `refused` is what its kernel does not have (refusing.py). `options` are those of
        `Agent`."""
        self._agents += 1
        if datapath == "routes":
            refused = "bpf"
        elif datapath:
            arguments += ("--datapath", datapath)
        if refused:
            wrapper = (sys.executable, "-B", refusing.__file__, refused, *wrapper)
        directory = again.runtime_directory if again else self.directory / f"agent-{self._agents}"
        for interface in (self.uplink,) if interfaces is None else interfaces:
            arguments += ("--interface", interface)
        return Agent(self.laptop, directory, *arguments, wrapper=wrapper, **options)

    def capture(self, where, interface, matching=lambda frame: True):
        """See `Capture`."""
        return Capture(where, interface, matching)

    def environment(self):
        """Variables that tell a program started in the lab what is where."""
        return {
            "LAB": self.prefix.rstrip("-"), "LAB_SERVER": self.SERVER, "LAB_DNS": self.DNS_SERVER,
            "LAB_PREF64": self.site.pref64, "LAB_SERVER6": synthesise(self.site.pref64, self.SERVER),
            "LAB_DIRECTORY": str(self.directory),
        }

    def close(self):
        """Ends every process in the lab's namespaces, removes these and the files. May be called again."""
        namespace.remove([name for name in _names() if name.startswith(self.prefix)])
        for site in getattr(self, "sites", []):
            site.close()
        if hasattr(self, "_servers"):
            self._servers.close()
        if hasattr(self, "_modem"):
            self._modem.communicate()
        for space in self.namespaces:
            space.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.close)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @staticmethod
    def _catch_sigterm():
        """SIGTERM leaves like an exception, so that `with` blocks and atexit do their work."""
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _names():
    with contextlib.suppress(FileNotFoundError):
        return [entry.name for entry in namespace.NETNS.iterdir() if entry.name.startswith(PREFIX)]
    return []


def _owner_is_gone(name):
    owner = name.removeprefix(PREFIX).partition("-")[0]
    return owner.isdigit() and not pathlib.Path("/proc", owner).exists()


def clean():
    """Removes what labs left whose process is gone: their processes, namespaces and files. Returns the namespaces'
    names."""
    names = [name for name in _names() if _owner_is_gone(name)]
    namespace.remove(names)
    for directory in pathlib.Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        if _owner_is_gone(directory.name):
            shutil.rmtree(directory, ignore_errors=True)
    return names


def main(arguments):
    """`shell [COMMAND...]` runs a shell, or the command, in the laptop of a new lab; `clean` removes leftovers."""
    if arguments[:1] == ["clean"]:
        namespace.prepare()
        for name in clean():
            print(f"removed {name}")
        return 0
    if arguments[:1] != ["shell"]:
        print("usage: lab.py shell [COMMAND...] | clean", file=sys.stderr)
        return 64
    with Lab() as lab:
        command = arguments[1:] or [os.environ.get("SHELL", "/bin/sh")]
        if not arguments[1:]:
            print(f"You are in the laptop. PREF64 {lab.site.pref64}; the Internet's server is {lab.SERVER}, by IPv6\n"
                  f"{synthesise(lab.site.pref64, lab.SERVER)}. The other namespaces: ip -n {lab.prefix}router ...\n"
                  "(switch, core, nat64, internet). The lab goes when you leave.")
        return lab.laptop.popen(command, stdin=None, env=os.environ | lab.environment()).wait()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except PermissionError as error:
        sys.exit(str(error))
