"""The parts of the lab's IPv6-only networks: routers on a link, and the sites they belong to.

A site is one operator: a router on the laptop's link, an IPv6-only router in the core, and a NAT64. Sites are numbered
from 0; every address follows from that number and is a documentation address (RFC 3849, RFC 9637, RFC 5737).
"""

import ipaddress

import ra

# Not the well-known 64:ff9b::/96: tayga refuses that prefix for addresses which are not global, and all of ours are
# such.
PREF64 = ["2001:db8:64::/96", "2001:db8:65::/96"]
# One prefix for each length of RFC 6052, to choose from.
PREF64_BY_LENGTH = {
    32: "3fff:64::/32", 40: "3fff:64:4000::/40", 48: "3fff:64:4800::/48", 56: "3fff:64:56:5600::/56",
    64: "3fff:64:64:6464::/64", 96: PREF64[0],
}


def synthesise(prefix, address):
    """The IPv6 address of an IPv4 address behind a NAT64 prefix (RFC 6052 section 2.2: bits 64 to 71 stay zero)."""
    network = ipaddress.IPv6Network(prefix)
    octets = bytearray(network.network_address.packed)
    position = network.prefixlen // 8
    for octet in ipaddress.IPv4Address(address).packed:
        position += position == 8
        octets[position] = octet
        position += 1
    return str(ipaddress.IPv6Address(bytes(octets)))


class Router:
    """A router on a laptop's link: namespace, `lan` interface, and the process that advertises there."""

    def __init__(self, namespace, site, number, has_hardware_address=True):
        self.namespace, self.site, self.number = namespace, site, number
        self.hardware_address = f"02:64:00:00:{site.number:02x}:{number:02x}" if has_hardware_address else None
        self.link_local = f"fe80::{number}"
        self.address = str(site.lan[number])
        self.advertiser = None

    def plan(self, link):
        """`ip` commands for the router's interfaces `lan` and `core`; `link` is the network towards the core."""
        return f"""
            link set lo up
            link set lan addrgenmode none {f"address {self.hardware_address}" if self.hardware_address else ""} up
            addr add {self.link_local}/64 dev lan nodad
            addr add {self.address}/64 dev lan nodad
            addr add {link[1]}/64 dev core nodad
            link set core up
            route add default via {link[2]}
        """

    def start(self):
        """Starts the process that advertises; it is silent until told what to say."""
        self.advertiser = ra.Advertiser(self.namespace, "lan")

    def advertisement(self, pref64=(), extra=(), **fields):
        """An advertisement as this router sends it: link-layer address if it has one, MTU, the link's prefix, RDNSS; then `pref64`, a
        list of prefixes, and `extra`, a list of options."""
        options = [
            *self.options(), ra.mtu(1500), ra.prefix_information(self.site.lan), ra.rdnss([self.site.resolver]),
            *(ra.pref64(prefix) for prefix in pref64), *extra]
        return ra.RouterAdvertisement(options=options, **({"source": self.link_local} | fields))

    def options(self):
        """What every advertisement of this router begins with."""
        return [ra.source_link_layer_address(self.hardware_address)] if self.hardware_address else []


class Site:
    """One operator's network."""

    def __init__(self, number, pref64=None):
        self.number = number
        self.pref64 = pref64 or PREF64[number]
        self.lan = ipaddress.IPv6Network(f"2001:db8:{number + 1}::/64")
        self.resolver = str(self.lan[0x53])
        self._upper = ipaddress.IPv6Network(f"2001:db8:f{number + 1}:1::/64")
        self._lower = ipaddress.IPv6Network(f"2001:db8:f{number + 1}:2::/64")
        self.wan = ipaddress.IPv4Network((int(ipaddress.IPv4Address("192.0.2.0")) + 4 * number, 30))
        self.routers = []
        self.core = self.nat64 = None
        self._processes = []

    @property
    def router(self):
        """The first router on the link."""
        return self.routers[0]

    @property
    def suffix(self):
        """What the site's namespaces and the uplink's number are told apart by: nothing for the first."""
        return f"-{self.number}" if self.number else ""

    def plumb(self, switch, router, core, nat64, internet):
        """Makes all links, addresses and routes from the switch to the internet host. Without a switch the router has its
        `lan` already, and no hardware address to tell."""
        self.core, self.nat64 = core, nat64
        self.routers = [Router(router, self, 1, has_hardware_address=switch is not None)]
        for namespace in (router, core, nat64):
            # The lab's own addresses need no second of DAD, and no error may fall to a rate limit where a test counts
            # hops.
            namespace.sysctl(
                ipv6__conf__all__accept_dad=0, ipv6__conf__default__accept_dad=0, ipv6__conf__all__forwarding=1,
                ipv6__icmp__ratelimit=0)
        nat64.sysctl(ipv4__ip_forward=1, ipv4__icmp_ratelimit=0)
        if switch:
            switch.ip(f"link add router{self.suffix} master lan{self.suffix} up type veth "
                      f"peer name lan netns {router.name}")
        core.ip(f"""
            link set lo up
            link add lan type veth peer name core netns {router.name}
            link add nat64 type veth peer name core netns {nat64.name}
            addr add {self._upper[2]}/64 dev lan nodad
            addr add {self._lower[1]}/64 dev nat64 nodad
            link set lan up
            link set nat64 up
            route add {self.lan} via {self._upper[1]}
            route add default via {self._lower[2]}
        """)
        router.ip(self.router.plan(self._upper))
        # The pool holds one IPv4 address per IPv6 host, for tayga is stateless; NAT44 makes one address of them all.
        nat64.ip(f"""
            link set lo up
            link add wan{self.suffix} type veth peer name wan{self.suffix} netns {internet.name}
            addr add {self._lower[2]}/64 dev core nodad
            addr add {self.wan[1]}/30 dev wan{self.suffix}
            link set core up
            link set wan{self.suffix} up
            tuntap add nat64 mode tun
            link set nat64 up
            route add {self.pref64} dev nat64
            route add 192.168.255.0/24 dev nat64
            route add default via {self.wan[2]}
            route add {self.lan} via {self._lower[1]}
            route add {self._upper} via {self._lower[1]}
        """)
        internet.ip(f"""
            addr add {self.wan[2]}/30 dev wan{self.suffix}
            link set wan{self.suffix} up
        """)

    def start(self, directory):
        """Starts the advertising process and the NAT64: Debian's tayga, and NAT44 by nftables."""
        self.router.start()
        self._translate(directory, "nat64", self.pref64, 255)
        self.nat64.run(["nft", "-f", "-"], check=True, stdin=f"""
            table ip lab {{
                chain postrouting {{
                    type nat hook postrouting priority srcnat
                    oifname "wan{self.suffix}" ip saddr 192.168.0.0/16 masquerade
                }}
            }}
        """)

    def _translate(self, directory, device, prefix, pool, fixed=()):
        configuration = directory / f"tayga{self.suffix}-{device}.conf"
        configuration.write_text(
            f"tun-device {device}\nipv4-addr 192.168.{pool}.1\nprefix {prefix}\ndynamic-pool 192.168.{pool}.0/24\n"
            + "".join(f"map {ipv4} {ipv6}\n" for ipv4, ipv6 in fixed))
        with open(directory / f"tayga{self.suffix}-{device}.log", "w") as log:
            command = ["tayga", "--nodetach", "--config", configuration]
            self._processes.append(self.nat64.popen(command, stdout=log, stderr=log))

    def add_nat64(self, directory, device, prefix, pool, fixed=()):
        """One more NAT64 beside the first, for another prefix, with the third octet of its pool; `fixed` are pairs (IPv4,
        IPv6) that keep together. Answers go to it for its pool only: see `answer_by`."""
        self.nat64.ip(f"""
            tuntap add {device} mode tun
            link set {device} up
            route add {prefix} dev {device}
            route add 192.168.{pool}.0/24 dev {device}
        """)
        self._translate(directory, device, prefix, pool, fixed)

    def answer_by(self, device, address):
        """From now on that NAT64 translates what comes for an IPv4 address of the pools."""
        self.nat64.ip(f"route replace {address}/32 dev {device}")

    def attach_router(self, switch, namespace):
        """Joins a further router (an empty namespace) to the site's link and core; silent until it is told to
        advertise."""
        number = len(self.routers) + 1
        router = Router(namespace, self, number)
        link = ipaddress.IPv6Network(f"2001:db8:f{self.number + 1}:{number + 1}::/64")
        namespace.sysctl(
            ipv6__conf__all__accept_dad=0, ipv6__conf__default__accept_dad=0, ipv6__conf__all__forwarding=1,
            ipv6__icmp__ratelimit=0)
        switch.ip(f"link add router{number}{self.suffix} master lan{self.suffix} up type veth "
                  f"peer name lan netns {namespace.name}")
        self.core.ip(f"""
            link add lan{number} type veth peer name core netns {namespace.name}
            addr add {link[2]}/64 dev lan{number} nodad
            link set lan{number} up
        """)
        namespace.ip(router.plan(link))
        router.start()
        self.routers.append(router)
        return router

    def add_prefix(self, prefix, directory):
        """A second NAT64 with another prefix, beside the first; advertised only when a test says so."""
        self.nat64.ip(f"""
            tuntap add nat64b mode tun
            link set nat64b up
            route add {prefix} dev nat64b
            route add 192.168.254.0/24 dev nat64b
        """)
        self.nat64.run(["nft", "add", "rule", "ip", "lab", "postrouting", "oifname", f"wan{self.suffix}", "ip", "saddr",
                        "192.168.254.0/24", "masquerade"], check=True)
        configuration = directory / f"tayga{self.suffix}b.conf"
        configuration.write_text(
            f"tun-device nat64b\nipv4-addr 192.168.254.1\nprefix {prefix}\ndynamic-pool 192.168.254.0/24\n")
        with open(directory / f"tayga{self.suffix}b.log", "w") as log:
            command = ["tayga", "--nodetach", "--config", configuration]
            self._processes.append(self.nat64.popen(command, stdout=log, stderr=log))

    def renumber(self, old, new, valid=7200):
        """The link has another prefix: it is routed, the router names it, and the one of before only as deprecated."""
        old, new = ipaddress.IPv6Network(old), ipaddress.IPv6Network(new)
        router = self.router
        router.namespace.ip(f"address replace {new[1]}/64 dev lan nodad")
        self.core.ip(f"route replace {new} via {self._upper[1]}")
        self.nat64.ip(f"route replace {new} via {self._lower[1]}")
        router.advertiser.advertise(ra.RouterAdvertisement(source=router.link_local, options=[
            *router.options(), ra.mtu(1500), ra.prefix_information(old, valid=valid, preferred=0), ra.prefix_information(new), ra.pref64(self.pref64)]))

    def set_mtu(self, mtu):
        """The MTU of the link between core and NAT64, both ends: what does not fit gets its error from the core."""
        self.core.ip(f"link set nat64 mtu {mtu}")
        self.nat64.ip(f"link set core mtu {mtu}")

    def start_dns64(self, directory):
        """Starts Debian's unbound as DNS64 on the router, at the address that RDNSS names. It asks the Internet's DNS
        server through the NAT64, as the router has no IPv4."""
        self.router.namespace.ip(f"addr add {self.resolver}/64 dev lan nodad")
        configuration = directory / f"unbound{self.suffix}.conf"
        configuration.write_text(f"""
server:
    module-config: "dns64 iterator"
    dns64-prefix: {self.pref64}
    interface: {self.resolver}
    access-control: ::/0 allow
    do-ip4: no
    username: ""
    chroot: ""
    directory: "{directory}"
    pidfile: ""
    use-syslog: no
    num-threads: 1
    do-daemonize: no
remote-control:
    control-enable: no
forward-zone:
    name: "."
    forward-addr: {synthesise(self.pref64, "198.51.100.53")}
""")
        with open(directory / f"unbound{self.suffix}.log", "w") as log:
            command = ["unbound", "-d", "-c", configuration]
            self._processes.append(self.router.namespace.popen(command, stdout=log, stderr=log))

    def close(self):
        """Ends the site's processes."""
        for router in self.routers:
            if router.advertiser:
                router.advertiser.close()
        for process in self._processes:
            process.kill()
            process.wait()
