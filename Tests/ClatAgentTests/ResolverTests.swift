import ClatBase
import ClatTranslator
import Foundation
import Testing

@testable import ClatAgent

private let announced = IPv6Address(high: 0x2001_0db8_0001_0000, low: 0x53)
private let told = IPv6Address(high: 0x2001_0db8_0001_0000, low: 0x54)
private let found = IPv6Address(high: 0x2001_0db8_0001_0000, low: 0x55)
private let rdnss = "19 03 0000 ffffffff 20010db8000100000000000000000053"
private let hostAddress = HostAddress(index: 2, value: .v6(IPv6Address(high: 0x2001_0db8_0001_0000, low: 9)))
private let known = PREF64("2001:db8:64::/96").map { [$0] } ?? []
private let second = IPv6Address(high: 0xfe80_0000_0000_0000, low: 2)

@Suite("The resolvers of a link")
struct ResolverTests {
    /// A link without PREF64 from a router.
    private func attached(
        _ options: String = rdnss,
        _ resolve: @escaping (DNSQuestion) -> DNSOutcome? = { _ in .none(.noAddress, lifetime: 600) }
    ) throws -> World {
        var world = World()
        world.resolve = resolve
        try world.happen(.link(ethernet(2)))
        try world.happen(.address(hostAddress))
        try world.happen(.advertisement(try parse(header + prefix1 + options), uplink: 2))
        return world
    }

    private func resolvers(_ world: World) -> [IPv6Address] {
        world.uplink(2)?.knowledge.dns.resolvers.map(\.address) ?? []
    }

    @Test("an operator who wants no DNS any more is obeyed at once, and so is one who wants it again")
    func switchedOff() throws {
        var world = try attached { _ in .prefixes(known, lifetime: 86400) }
        #expect(world.uplink(2)?.reason.state == .on)
        var off = Configuration()
        off.defaults.usesDNS = false
        try world.happen(.configure(off))
        #expect(world.uplink(2)?.reason == .noPREF64 && world.kernel.isClean)
        try world.pass(.seconds(60))
        try world.happen(.configure(Configuration()))
        #expect(world.uplink(2)?.reason.state == .on)
    }

    @Test(
        "those of the interface in the system's files are asked after those of routers and hooks, and not alone in their stead"
    )
    func union() throws {
        var world = World()
        world.systemResolvers = ([found], .systemd)
        world.resolve = { $0.server == found ? .prefixes(known, lifetime: 600) : .none(.noAddress, lifetime: 600) }
        try world.happen(.link(ethernet(2)))
        try world.happen(.address(hostAddress))
        try world.happen(.advertisement(try parse(header + prefix1 + rdnss), uplink: 2))
        try world.happen(.resolvers([told], .told, uplink: 2))
        #expect(resolvers(world) == [announced, told, found])
        #expect(world.uplink(2)?.entry?.source == .resolver(found))
    }

    @Test("what is no longer in one of the system's files does not hide what is in another")
    func files() throws {
        var world = try attached("")
        try world.happen(.resolvers([found], .systemd, uplink: 2))
        try world.happen(.resolvers([told], .resolvConf, uplink: 2))
        #expect(resolvers(world) == [told])
        try world.happen(.resolvers([found], .systemd, uplink: 2))
        #expect(resolvers(world) == [found])
        try world.happen(.resolvers([], .resolvConf, uplink: 2))
        #expect(resolvers(world) == [])
    }

    @Test(
        "on another network those of before are not asked; on the same one they stay, though one of its routers is silent"
    )
    func elsewhere() throws {
        for isSame in [false, true] {
            var world = try attached(rdnss)
            try world.happen(.advertisement(try parse(header, from: second), uplink: 2))
            try world.happen(.resolvers([told], .told, uplink: 2))
            try world.pass(.seconds(60))
            try world.happen(.associated(uplink: 2))
            let elsewhere = prefix1.replacing("20010db80001", with: "20010db80002")
            try world.happen(.advertisement(try parse(header + (isSame ? prefix1 : elsewhere) + rdnss), uplink: 2))
            try world.pass(.seconds(30))
            #expect(resolvers(world) == (isSame ? [announced, told] : [announced]))
            #expect(world.uplink(2)?.knowledge.doubt == nil && world.uplink(2)?.knowledge.routers.count == 1)
        }
        // What a hook has told meanwhile is of the new network.
        var world = try attached("")
        try world.pass(.seconds(60))
        try world.happen(.associated(uplink: 2))
        try world.pass(.seconds(1))
        try world.happen(.resolvers([told], .told, uplink: 2))
        try world.happen(.advertisement(try parse(header + prefix1, from: second), uplink: 2))
        try world.pass(.seconds(30))
        #expect(resolvers(world) == [told])
    }

    @Test("when the status says that a prefix is refreshed is when its own resolver is asked")
    func refresh() throws {
        var world = try attached(
            "19 05 0000 ffffffff 20010db8000100000000000000000053 20010db8000100000000000000000054"
        ) {
            $0.server == announced ? .prefixes(known, lifetime: 3600) : .none(.noAddress, lifetime: 60)
        }
        try world.pass(.seconds(10))
        let machine = try #require(world.uplink(2))
        let status = try #require(InterfaceStatus(machine, device: nil, nil, Configuration(), now: world.now))
        #expect(status.pref64RefreshSeconds.map { 3570...3580 ~= $0 } == true)
    }

    @Test(
        "the system's files are read as they are",
        arguments: [
            (
                [
                    "run/systemd/netif/links/7": networkd, "run/systemd/resolve/netif/7": resolved,
                    "etc/resolv.conf": stub,
                ],
                ["2001:db8:1::53", "fe80::1"], ResolverSource.systemd
            ),
            (["run/systemd/resolve/netif/7": resolved, "etc/resolv.conf": stub], ["2001:db8:1::54"], .systemd),
            // Of another interface, and one whose lease has no resolvers any more.
            (
                [
                    "run/systemd/netif/links/8": networkd, "run/systemd/netif/links/7": networkdWithout,
                    "etc/resolv.conf": networkManager,
                ], ["2001:db8:1::55", "fe80::1"], .resolvConf
            ),
            (["etc/resolv.conf": stub], [], .resolvConf), ([:], [], .resolvConf),
        ] as [([String: String], [String], ResolverSource)])
    func layouts(files: [String: String], servers: [String], source: ResolverSource) throws {
        let root = FileManager.default.temporaryDirectory.appending(path: "clat-agent-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: root) }
        for (path, text) in files {
            let file = root.appending(path: path)
            try FileManager.default.createDirectory(
                at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
            try Data(text.utf8).write(to: file)
        }
        let result = SystemResolvers.find(7, root: root.path(percentEncoded: false))
        #expect(result.servers.map(\.description) == servers && result.source == source)
    }
}

/// As systemd-networkd 252 writes it.
private let networkd = """
    # This is private data. Do not parse.
    ADMIN_STATE=configured
    OPER_STATE=routable
    CARRIER_STATE=carrier
    ADDRESS_STATE=routable
    IPV4_ADDRESS_STATE=degraded
    IPV6_ADDRESS_STATE=routable
    ONLINE_STATE=online
    NETWORK_FILE=/etc/systemd/network/10-uplink.network
    REQUIRED_FOR_ONLINE=yes
    DNS=192.0.2.53 2001:db8:1::53 fe80::1%eth0
    NTP=
    SIP=
    DOMAINS=
    ROUTE_DOMAINS=

    """
private let networkdWithout = networkd.replacing("DNS=192.0.2.53 2001:db8:1::53 fe80::1%eth0", with: "DNS=")
/// As systemd-resolved 252 writes it.
private let resolved = """
    # This is private data. Do not parse.
    LLMNR=yes
    MDNS=yes
    SERVERS=192.0.2.53 2001:db8:1::54#dns.example
    DOMAINS=~.

    """
private let stub = """
    # This is /run/systemd/resolve/stub-resolv.conf managed by man:systemd-resolved(8).
    nameserver 127.0.0.53
    options edns0 trust-ad
    search .

    """
private let networkManager = """
    # Generated by NetworkManager
    search example
    nameserver 192.0.2.53
    nameserver 2001:db8:1::55
    nameserver fe80::1%wlan0

    """
