import ClatBase
import Testing

@testable import ClatAgent
@testable import ClatNetlink

@Suite("What a killed clatd leaves")
struct ClatdLeftoverTests {
    private typealias Host = ClatdLeftover.Host

    private static let table = RouteTable(rawValue: 0xc1a7)
    private static let own = IPPrefix(.v6(IPv6Address(high: 0x2001_0db8_0001_0000, low: 0xc1a7)))
    private static let born = [
        Rule(.ipv6, priority: 0, table: .local, origin: .kernel), Rule(.ipv6, priority: 32766, table: .main),
    ]
    private static let marking = Rule(.ipv6, priority: 0, to: own, table: table, origin: .boot)
    private static let moved = Rule(.ipv6, priority: 1, table: .local, origin: .boot)

    private static func link(_ index: UInt32, _ name: String, kind: String? = nil) throws -> Link {
        Link(
            index: index, name: name, kind: kind, hardwareType: 1, mtu: 1500, flags: [], operationalState: .up,
            carrier: true,
            transmitQueueLength: 0)
    }

    private static func address(_ index: UInt32, _ a: UInt8, _ b: UInt8, _ c: UInt8, _ d: UInt8) -> InterfaceAddress {
        InterfaceAddress(.v4(IPv4Address(a, b, c, d)), prefixLength: 32, on: index)
    }

    /// A host without anything of clatd's, with these settings.
    private static func host(_ settings: [String: String] = [:]) throws -> Host {
        Host(
            links: [try link(1, "lo"), try link(2, "eth0")], rules: born,
            setting: { settings[$0] })
    }

    /// One with all of it.
    private static func left(_ settings: [String: String] = [:]) throws -> Host {
        var host = try host(settings)
        host.links.append(try link(9, "clat", kind: "tun"))
        host.addresses = [address(9, 192, 0, 0, 1)]
        host.rules = [marking, moved, born[1]]
        host.routes = [Route(to: own, on: 9, table: table)]
        host.hasPacketFilter = true
        return host
    }

    @Test("all of it, and in which order it is undone")
    func all() throws {
        let forwarding = "ipv6/conf/all/forwarding"
        var host = try Self.left([
            forwarding: "1", "ipv6/conf/default/accept_ra": "2", "ipv6/conf/eth0/accept_ra": "2",
            "ipv6/conf/lo/accept_ra": "0", "ipv6/conf/eth0/proxy_ndp": "1",
        ])
        let proxy = Neighbour(Self.own.address, at: nil, on: 2, isProxy: true)
        host.proxies = [proxy]
        host.users = [(12, "tayga", "clat"), (13, "tayga", "nat64")]
        #expect(
            ClatdLeftover.find(on: host) == [
                .translator(process: 12, device: "clat"), .setting(forwarding, is: "1", was: "0"),
                .setting("ipv6/conf/default/accept_ra", is: "2", was: "1"),
                .setting("ipv6/conf/eth0/accept_ra", is: "2", was: "1"),
                .setting("ipv6/conf/eth0/proxy_ndp", is: "1", was: "0"), .proxy(proxy, device: "eth0"),
                .localRule(Self.moved), .rule(Self.marking), .packetFilter,
                .device(name: "clat", index: 9, address: IPv4Address(192, 0, 0, 1)),
            ])
    }

    @Test("a host that only forwards, or has rules and proxies of its own, has nothing of clatd's")
    func others() throws {
        var host = try Self.host(["ipv6/conf/all/forwarding": "1", "ipv6/conf/default/accept_ra": "2"])
        host.rules = [Self.moved, Self.born[1]]
        host.proxies = [Neighbour(Self.own.address, at: nil, on: 2, isProxy: true)]
        #expect(ClatdLeftover.find(on: host).isEmpty)
    }

    @Test("a device named clat is clatd's by its address, unless somebody serves it and clatd's table is empty")
    func devices() throws {
        func found(kind: String = "tun", addresses: [InterfaceAddress], users: [(Int, String, String)] = []) throws
            -> Bool
        {
            var host = try Self.host()
            host.links.append(try Self.link(9, "clat", kind: kind))
            host.addresses = addresses
            host.users = users.map { (process: $0.0, name: $0.1, device: $0.2) }
            return !ClatdLeftover.find(on: host).isEmpty
        }
        let address = Self.address(9, 192, 0, 0, 1)
        #expect(try found(addresses: [address]))
        #expect(try !found(addresses: []), "a TUN without an address may be anybody's")
        #expect(try !found(addresses: [Self.address(9, 10, 0, 0, 1)]), "so may one with another")
        #expect(try !found(kind: "veth", addresses: [address]), "clatd makes no veth")
        #expect(try !found(addresses: [address], users: [(7, "tayga", "clat")]), "somebody's own TAYGA")
    }

    @Test("the device of the module nat46 has no kind, and goes by another way")
    func nat46() throws {
        var host = try Self.left()
        host.links[2] = Link(
            index: 9, name: "clat", kind: nil, hardwareType: 0xfffe, mtu: 1500, flags: [], operationalState: .up,
            carrier: true, transmitQueueLength: 0)
        let device = ClatdLeftover.device(name: "clat", index: nil, address: IPv4Address(192, 0, 0, 1))
        #expect(ClatdLeftover.find(on: host).last == device)
        #expect(device.sentence.hasPrefix("the nat46 device clat with 192.0.0.1"))
        // Ethernet without a kind is hardware.
        host.links[2].hardwareType = 1
        #expect(!ClatdLeftover.find(on: host).contains(device))
    }

    @Test(
        "a script is the first argument that is no option",
        arguments: [
            ("perl\0-w\0/usr/sbin/clatd\0-q\0", "clatd"), ("/usr/bin/perl\0x\0", "x"), ("perl\0-e\0", nil), ("", nil),
        ] as [(String, String?)])
    func scripts(commandLine: String, name: String?) {
        #expect(Processes.script(in: commandLine) == name)
    }

    @Test("forwarding that was on before clatd came is left alone")
    func forwardingBefore() throws {
        // clatd would have made a 2 of the 1 in `default`.
        let host = try Self.left(["ipv6/conf/all/forwarding": "1", "ipv6/conf/default/accept_ra": "1"])
        let forwarding = ClatdLeftover.find(on: host).filter { $0.isForwarding }
        #expect(forwarding.isEmpty)
    }

    @Test("a device that answers for another address too keeps its switch; addresses of others stay")
    func otherProxies() throws {
        var host = try Self.left(["ipv6/conf/eth0/proxy_ndp": "1"])
        let ours = Neighbour(Self.own.address, at: nil, on: 2, isProxy: true)
        let theirs = Neighbour(.v6(IPv6Address(high: 0x2001_0db8_0001_0000, low: 7)), at: nil, on: 2, isProxy: true)
        host.proxies = [ours, theirs]
        let found = ClatdLeftover.find(on: host)
        #expect(found.contains(.proxy(ours, device: "eth0")) && !found.contains(.proxy(theirs, device: "eth0")))
        #expect(!found.contains(.setting("ipv6/conf/eth0/proxy_ndp", is: "1", was: "0")))
    }

    @Test("a second rule for local addresses is somebody's intention")
    func localRules() throws {
        var host = try Self.left()
        host.rules.append(Self.born[0])
        #expect(!ClatdLeftover.find(on: host).contains(.localRule(Self.moved)))
    }

    @Test("clatd.conf tells other names and numbers, but for the tables every host has")
    func names() throws {
        let names = ClatdLeftover.Names(
            configuration: "clat-dev=v4\nroute-table = 0x10\n # clat-dev=x\nclat-v4-addr=10.1.2.3 \n")
        #expect(names.device == "v4" && names.table.rawValue == 16 && names.address == IPv4Address(10, 1, 2, 3))
        for table in ["254", "255", "0", "nonsense"] {
            #expect(ClatdLeftover.Names(configuration: "route-table=\(table)").table == Self.table)
        }
        // The nftables table has that name always.
        let found = ClatdLeftover.find(on: try Self.left(), names)
        #expect(found == [.localRule(Self.moved), .packetFilter])
    }

    @Test("of ufw's rules those of the device, each once")
    func ufw() {
        let rules = """
            ### tuple ### route:allow any any 0.0.0.0/0 any 0.0.0.0/0 in_clat!out_eth0
            -A ufw-user-forward -i clat -o eth0 -j ACCEPT
            ### tuple ### route:allow any any 0.0.0.0/0 any 0.0.0.0/0 in_eth0!out_clat
            ### tuple ### route:allow any any ::/0 any ::/0 in_clat!out_eth0
            ### tuple ### route:allow any any 0.0.0.0/0 any 0.0.0.0/0 in_wg0!out_eth0
            ### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in
            """
        #expect(
            ClatdLeftover.firewallRules(rules, device: "clat") == [
                .firewallRule(from: "clat", to: "eth0"), .firewallRule(from: "eth0", to: "clat"),
            ])
    }
}
