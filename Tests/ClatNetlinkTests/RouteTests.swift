import CLinux
import ClatBase
import Foundation
import Glibc
import Testing

@testable import ClatNetlink

@Suite("Routes of a kernel", .enabled(if: geteuid() == 0, "needs root"))
struct RouteTests {
    let pair: VethPair
    init() throws { pair = try VethPair() }

    /// The CLAT's way: a /32, no gateway address of IPv4, no ARP.
    func makeCLATRoute(_ socket: inout NetlinkSocket) throws -> Route {
        let index = pair.nearLink.index
        let gateway = try IPAddress("fe80::1")
        try socket.addAddress(InterfaceAddress(try IPAddress("192.0.0.1"), prefixLength: 32, on: index))
        try socket.replaceNeighbour(Neighbour(gateway, at: pair.farLink.hardwareAddress, on: index))
        let route = Route(
            to: .any(.ipv4), via: gateway, on: index, metric: 2048, mtu: 1480, advertisedMSS: 1440,
            preferredSource: try IPAddress("192.0.0.1"))
        try socket.addRoute(route)
        return route
    }

    @Test("An IPv4 default route over an IPv6 next hop is read back as it was added, and removed")
    func overIPv6() throws {
        var socket = try NetlinkSocket(in: pair.near)
        let route = try makeCLATRoute(&socket)
        #expect(try socket.routes(.ipv4) == [route])
        #expect(route.isDefault)
        #expect(try code { try socket.addRoute(route) } == EEXIST)
        let text = try output(of: "ip route", in: pair.near)
        let shown = "default via inet6 fe80::1 dev a proto static src 192.0.0.1 metric 2048 mtu 1480 advmss 1440"
        #expect(text.contains(shown))
        try socket.removeRoute(route)
        #expect(try socket.routes(.ipv4).isEmpty)
        #expect(try code { try socket.removeRoute(route) } == ESRCH)
    }

    @Test("Over it a datagram reaches the other namespace, by the permanent neighbour alone")
    func carriesPackets() throws {
        var socket = try NetlinkSocket(in: pair.near)
        _ = try makeCLATRoute(&socket)
        var far = try NetlinkSocket(in: pair.far)
        try far.addAddress(InterfaceAddress(try IPAddress("198.51.100.1"), prefixLength: 32, on: pair.farLink.index))
        // Source addresses without a way back are what the lab has.
        try pair.far.run {
            try Sysctl.write("0", to: "ipv4/conf/all/rp_filter")
            try Sysctl.write("0", to: "ipv4/conf/b/rp_filter")
        }
        let receiver = OwnedDescriptor(adopting: try pair.far.run { try datagramSocket() })
        let sender = OwnedDescriptor(adopting: try pair.near.run { try datagramSocket() })
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(4646).bigEndian
        address.sin_addr.s_addr = IPv4Address(198, 51, 100, 1).rawValue.bigEndian
        let size = socklen_t(MemoryLayout<sockaddr_in>.size)
        try withUnsafePointer(to: &address) {
            let address = __CONST_SOCKADDR_ARG(__sockaddr_in__: $0)
            try retrying("bind") { Glibc.bind(receiver.rawValue, address, size) }
            try retrying("sendto") { Glibc.sendto(sender.rawValue, "clat", 4, 0, address, size) }
        }
        var poll = pollfd(fd: receiver.rawValue, events: Int16(POLLIN), revents: 0)
        #expect(Glibc.poll(&poll, 1, 20_000) == 1)
        var buffer = [UInt8](repeating: 0, count: 16)
        #expect(read(receiver.rawValue, &buffer, buffer.count) == 4)
        #expect(buffer.prefix(4) == Array("clat".utf8)[...])
    }

    @Test("A lookup tells the way, the source and the table, or that there is none")
    func lookup() throws {
        var socket = try NetlinkSocket(in: pair.near)
        #expect(try socket.route(to: try IPAddress("198.51.100.1")) == nil)
        #expect(try socket.route(to: try IPAddress("2001:db8::1")) == nil)
        _ = try makeCLATRoute(&socket)
        let found = try #require(try socket.route(to: try IPAddress("198.51.100.1")))
        #expect(found.destination == IPPrefix(try IPAddress("198.51.100.1")))
        #expect(found.gateway == (try IPAddress("fe80::1")))
        #expect(found.outputIndex == pair.nearLink.index)
        #expect(found.preferredSource == (try IPAddress("192.0.0.1")))
        #expect(found.table == .main)
        #expect(found.mtu == 1480)
        #expect(try socket.route(to: try IPAddress("192.0.0.1"))?.kind == .local)
        try socket.addRoute(Route(to: .any(.ipv6), kind: .blackhole))
        #expect(try code { _ = try socket.route(to: try IPAddress("2001:db8::1")) } == EINVAL)
    }

    @Test(
        "Routes that lead nowhere are added, read and removed",
        arguments: AddressFamily.allCases, [RouteKind.unreachable, .blackhole, .prohibit, .throw])
    func nowhere(_ family: AddressFamily, _ kind: RouteKind) throws {
        var socket = try NetlinkSocket(in: pair.near)
        let table = RouteTable(rawValue: 46464)
        let address = try IPAddress(family == .ipv4 ? "192.0.2.0" : "2001:db8::")
        let destination = try #require(IPPrefix(address, length: family == .ipv4 ? 24 : 32))
        let route = Route(to: destination, metric: 77, table: table, kind: kind)
        #expect(try socket.routes(family, table: table).isEmpty)
        try socket.addRoute(route)
        let found = try #require(try socket.routes(family, table: table).first)
        #expect(found.destination == route.destination)
        #expect(found.kind == kind)
        #expect(found.metric == 77)
        #expect(found.table == table)
        #expect(found.origin == .static)
        #expect(try !socket.routes(family).contains(found))
        #expect(try socket.routes(family, table: nil).contains(found))
        try socket.removeRoute(found)
        #expect(try socket.routes(family, table: table).isEmpty)
    }

    @Test("A replacement changes the route to the same destination with the same metric")
    func replace() throws {
        var socket = try NetlinkSocket(in: pair.near)
        var route = try makeCLATRoute(&socket)
        route.mtu = 1260
        route.advertisedMSS = nil
        try socket.replaceRoute(route)
        #expect(try socket.routes(.ipv4) == [route])
    }

    @Test("A gateway off the link needs the onlink flag")
    func onLink() throws {
        var socket = try NetlinkSocket(in: pair.near)
        try socket.addAddress(
            InterfaceAddress(try IPAddress("192.0.0.1"), prefixLength: 32, on: pair.nearLink.index))
        var route = Route(to: .any(.ipv4), via: try IPAddress("192.0.0.2"), on: pair.nearLink.index)
        let error = #expect(throws: NetlinkError.self) { try socket.addRoute(route) }
        #expect(error?.code == ENETUNREACH)
        #expect(error?.message == "Nexthop has invalid gateway")
        route.flags = .onLink
        try socket.addRoute(route)
        #expect(try socket.routes(.ipv4) == [route])
    }

    @Test("The hops of multipath defaults of both families are read")
    func multipath() throws {
        _ = try output(
            of: """
                ip addr add 192.0.2.1/24 dev a && ip addr add 2001:db8::1/64 dev a nodad &&
                ip route add default nexthop via 192.0.2.2 dev a weight 3 nexthop via inet6 fe80::2 dev a &&
                ip -6 route add default nexthop via 2001:db8::2 dev a weight 2 nexthop via fe80::2 dev a onlink
                """, in: pair.near)
        var socket = try NetlinkSocket(in: pair.near)
        let index = pair.nearLink.index
        let ipv4 = try #require(try socket.routes(.ipv4).first { $0.isDefault })
        #expect(ipv4.outputIndex == nil)
        #expect(
            ipv4.nextHops == [
                NextHop(gateway: try IPAddress("192.0.2.2"), outputIndex: index, weight: 3, flags: []),
                NextHop(gateway: try IPAddress("fe80::2"), outputIndex: index, weight: 1, flags: []),
            ])
        let ipv6 = try #require(try socket.routes(.ipv6).first { $0.isDefault })
        #expect(
            Set(ipv6.nextHops) == [
                NextHop(gateway: try IPAddress("2001:db8::2"), outputIndex: index, weight: 2, flags: []),
                NextHop(gateway: try IPAddress("fe80::2"), outputIndex: index, weight: 1, flags: .onLink),
            ])
    }

    @Test("The list says what ip says", arguments: AddressFamily.allCases)
    func secondOpinion(_ family: AddressFamily) throws {
        _ = try output(
            of: """
                ip link set lo up && ip addr add 192.0.2.1/24 dev a && ip addr add 2001:db8::1/64 dev a nodad &&
                ip route add default via 192.0.2.2 metric 100 src 192.0.2.1 proto dhcp &&
                ip route add 203.0.113.0/24 via inet6 fe80::2 dev a mtu 1400 && ip route add blackhole 10.0.0.0/8 &&
                ip -6 route add default via fe80::2 dev a pref high proto ra metric 1024 mtu 1400 &&
                ip -6 route add default via fe80::3 dev a pref low proto ra metric 2048 &&
                ip -6 route add unreachable 2001:db8:1::/48 && ip -6 route add 64:ff9b::/96 via fe80::2 dev a table 99
                """, in: pair.near)
        struct Row: Decodable {
            struct Via: Decodable { var host: String }
            struct Metrics: Decodable { var mtu: Int? }
            var type: String?
            var dst: String
            var gateway: String?
            var via: Via?
            var dev: String?
            var table: String?
            var `protocol`: String
            var scope: String?
            var prefsrc: String?
            var metric: UInt32?
            var metrics: [Metrics]?
            var pref: String?
        }
        let option = family == .ipv4 ? "-4" : "-6"
        let text = try output(of: "ip -j -d \(option) route show table all", in: pair.near)
        let rows = try JSONDecoder().decode([Row].self, from: Data(text.utf8))
        var socket = try NetlinkSocket(in: pair.near)
        let routes = try socket.routes(family, table: nil)
        #expect(socket.malformed == 0)
        #expect(routes.count == rows.count)
        #expect(rows.count >= 8)
        let names = Dictionary(uniqueKeysWithValues: try socket.links().map { ($0.index, $0.name) })
        let kinds: [RouteKind: String] = [
            .unicast: "unicast", .local: "local", .broadcast: "broadcast", .anycast: "anycast",
            .multicast: "multicast", .blackhole: "blackhole", .unreachable: "unreachable",
        ]
        let tables: [RouteTable: String] = [.main: "main", .local: "local", RouteTable(rawValue: 99): "99"]
        let origins: [RouteOrigin: String] = [
            .kernel: "kernel", .boot: "boot", .ra: "ra", .dhcp: "dhcp", .static: "static",
        ]
        let scopes: [Scope: String] = [.universe: "global", .link: "link", .host: "host"]
        let preferences: [RouterPreference: String] = [.low: "low", .medium: "medium", .high: "high"]
        for (route, row) in zip(routes, rows) {
            let whole = route.destination.length == family.bits
            let name = whole ? route.destination.address.description : route.destination.description
            #expect((route.destination.length == 0 ? "default" : name) == row.dst)
            #expect(kinds[route.kind] == row.type)
            #expect(route.gateway?.description == row.gateway ?? row.via?.host)
            #expect(route.outputIndex.flatMap { names[$0] } == row.dev)
            #expect(tables[route.table] == row.table)
            #expect(origins[route.origin] == row.protocol)
            if let scope = row.scope { #expect(scopes[route.scope] == scope) }
            #expect(route.preferredSource?.description == row.prefsrc)
            #expect(route.metric == row.metric ?? 0)
            #expect(route.mtu == row.metrics?.first?.mtu)
            #expect(route.preference.flatMap { preferences[$0] } == row.pref)
        }
    }

    /// The errno of a request that must fail.
    func code(_ body: () throws -> Void) throws -> CInt {
        try #require(throws: NetlinkError.self, performing: body).code
    }
}

private func datagramSocket() throws -> CInt {
    try retrying("socket") { socket(AF_INET, CInt(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0) }
}
