import ClatBase
import Foundation
import Glibc
import Testing

@testable import ClatNetlink

@Suite("Addresses of a kernel", .enabled(if: geteuid() == 0, "needs root"))
struct AddressTests {
    let pair: VethPair
    init() throws { pair = try VethPair() }

    @Test("An IPv4 address is added once, with its scope and lifetimes, and removed once")
    func ipv4() throws {
        var socket = try NetlinkSocket(in: pair.near)
        let address = InterfaceAddress(
            try IPAddress("192.0.0.1"), prefixLength: 32, on: pair.nearLink.index, scope: .link,
            preferredLifetime: .seconds(1000), validLifetime: .seconds(2000))
        try socket.addAddress(address)
        var found = try #require(try socket.addresses(.ipv4, on: pair.nearLink.index).first)
        #expect(found.address == address.address)
        #expect(found.prefixLength == 32)
        #expect(found.peer == nil)
        #expect(found.scope == .link)
        #expect(!found.flags.contains(.permanent))
        #expect((.seconds(900)...(.seconds(1000))).contains(try #require(found.preferredLifetime)))
        #expect((.seconds(1900)...(.seconds(2000))).contains(try #require(found.validLifetime)))
        #expect(try code { try socket.addAddress(address) } == EEXIST)

        found.validLifetime = nil
        found.preferredLifetime = nil
        try socket.replaceAddress(found)
        let changed = try socket.addresses(.ipv4)
        #expect(changed.map(\.address) == [address.address])
        #expect(changed.first?.validLifetime == nil)
        #expect(changed.first?.flags.contains(.permanent) == true)

        try socket.removeAddress(address)
        #expect(try code { try socket.removeAddress(address) } == EADDRNOTAVAIL)
        #expect(try socket.addresses(.ipv4).isEmpty)
    }

    @Test("A peer is told from the address itself", arguments: ["192.0.0.2", "fe80::2"])
    func peer(_ text: String) throws {
        var socket = try NetlinkSocket(in: pair.near)
        let own = try IPAddress(text == "fe80::2" ? "fe80::1" : "192.0.0.1")
        var address = InterfaceAddress(
            own, prefixLength: own.family.bits, on: pair.nearLink.index, flags: own.family == .ipv6 ? .noDAD : [])
        address.peer = try IPAddress(text)
        try socket.addAddress(address)
        let found = try #require(try socket.addresses(own.family, on: address.index).first)
        #expect(found.address == own)
        #expect(found.peer == address.peer)
        try socket.removeAddress(found)
        #expect(try socket.addresses(own.family, on: address.index).isEmpty)
    }

    @Test("A preferred lifetime of zero deprecates an IPv6 address, and a replacement revives it without DAD")
    func deprecate() throws {
        var socket = try NetlinkSocket(in: pair.near)
        var address = InterfaceAddress(
            try IPAddress("2001:db8::1"), prefixLength: 64, on: pair.nearLink.index, flags: [.noDAD, .noPrefixRoute],
            preferredLifetime: .zero, validLifetime: .seconds(7200))
        try socket.addAddress(address)
        let deprecated = try #require(try socket.addresses(.ipv6, on: address.index).first)
        #expect(deprecated.flags.isSuperset(of: [.deprecated, .noPrefixRoute, .noDAD]))
        #expect(deprecated.preferredLifetime == .zero)
        #expect(try socket.routes(.ipv6).isEmpty)
        address.preferredLifetime = .seconds(3600)
        try socket.replaceAddress(address)
        let revived = try #require(try socket.addresses(.ipv6, on: address.index).first)
        #expect(revived.flags.isDisjoint(with: [.deprecated, .tentative, .permanent]))
        #expect(revived.preferredLifetime ?? .zero > .seconds(3000))
    }

    @Test("The kernel's own addresses say who made them and how far they reach")
    func kernelMade() throws {
        var socket = try NetlinkSocket(in: pair.far)
        #expect(try eventually { try !socket.addresses(.ipv6, on: pair.farLink.index).isEmpty })
        let address = try #require(try socket.addresses(.ipv6, on: pair.farLink.index).first)
        #expect(address.scope == .link)
        #expect(address.origin == 3 || address.origin == 0)
        guard case .v6(let value) = address.address else { return #expect(Bool(false)) }
        #expect(value.isLinkLocal)
    }

    @Test("A link that is not there has no addresses and takes none")
    func noLink() throws {
        var socket = try NetlinkSocket(in: pair.near)
        #expect(try socket.addresses(on: 999).isEmpty)
        let address = InterfaceAddress(try IPAddress("192.0.0.1"), prefixLength: 32, on: 999)
        let error = #expect(throws: NetlinkError.self) { try socket.addAddress(address) }
        #expect(error?.code == ENODEV)
        #expect(error?.operation == "add address 192.0.0.1/32 on link 999")
    }

    @Test("A preferred lifetime beyond the valid one is refused")
    func refusal() throws {
        var socket = try NetlinkSocket(in: pair.near)
        let address = InterfaceAddress(
            try IPAddress("2001:db8::1"), prefixLength: 64, on: pair.nearLink.index,
            preferredLifetime: .seconds(20), validLifetime: .seconds(10))
        #expect(try code { try socket.addAddress(address) } == EINVAL)
    }

    @Test("The list says what ip says")
    func secondOpinion() throws {
        _ = try output(
            of: """
                ip link set lo up && ip addr add 192.0.2.1/24 dev a && ip addr add 192.0.2.2/24 dev a &&
                ip addr add 10.0.0.1 peer 10.0.0.2/32 dev a && ip addr add 2001:db8::1/64 dev a nodad &&
                ip addr add 2001:db8::2/64 dev a nodad noprefixroute valid_lft 500 preferred_lft 0 &&
                ip addr add 2001:db8::3/64 dev a nodad mngtmpaddr valid_lft 900 preferred_lft 800
                """, in: pair.near)
        struct Row: Decodable {
            struct Address: Decodable {
                var family: String
                var local: String
                var address: String?
                var prefixlen: Int
                var scope: String
                var secondary: Bool?
                var deprecated: Bool?
                var noprefixroute: Bool?
                var nodad: Bool?
                var valid_life_time: UInt32
            }
            var ifindex: UInt32
            var addr_info: [Address]
        }
        var socket = try NetlinkSocket(in: pair.near)
        let text = try output(of: "ip -j addr", in: pair.near)
        let rows = try JSONDecoder().decode([Row].self, from: Data(text.utf8)).flatMap { row in
            row.addr_info.map { (row.ifindex, $0) }
        }
        let addresses = try socket.addresses()
        #expect(addresses.count == rows.count)
        #expect(rows.count >= 7)
        let scopes: [Scope: String] = [.universe: "global", .link: "link", .host: "host"]
        for (index, row) in rows {
            let address = try #require(
                addresses.first { $0.index == index && $0.address.description == row.local })
            #expect((address.family == .ipv4 ? "inet" : "inet6") == row.family)
            #expect(address.prefixLength == row.prefixlen)
            #expect(address.peer?.description == row.address)
            #expect(scopes[address.scope] == row.scope)
            #expect(address.flags.contains(.deprecated) == (row.deprecated ?? false))
            #expect(address.flags.contains(.noPrefixRoute) == (row.noprefixroute ?? false))
            #expect(address.flags.contains(.noDAD) == (row.nodad ?? false))
            if address.family == .ipv4 { #expect(address.flags.contains(.temporary) == (row.secondary ?? false)) }
            let seconds = address.validLifetime?.components.seconds
            #expect((seconds == nil) == (row.valid_life_time == .max))
            if let seconds { #expect(abs(seconds - Int64(row.valid_life_time)) <= 20) }
        }
    }

    /// The errno of a request that must fail.
    func code(_ body: () throws -> Void) throws -> CInt {
        try #require(throws: NetlinkError.self, performing: body).code
    }
}

extension InterfaceAddress {
    fileprivate var family: AddressFamily { address.family }
}

@Suite("Duplicate address detection", .enabled(if: geteuid() == 0, "needs root"))
struct DADTests {
    let pair: VethPair
    init() throws { pair = try VethPair() }

    /// A macvlan on the near link, up, in a namespace of its own.
    func macvlan() throws -> (NamespaceBox, UInt32) {
        var socket = try NetlinkSocket(in: pair.near)
        let box = try NamespaceBox()
        try socket.createMacvlan("clat0", on: pair.nearLink.index, in: box.namespace)
        var inside = try NetlinkSocket(in: box.namespace)
        let index = try #require(try inside.link(named: "clat0")).index
        try inside.setLink(index, up: true)
        return (box, index)
    }

    /// Adds an address on a macvlan and waits for the outcome.
    func outcome(of text: String, valid: Duration? = nil, within time: Duration = .seconds(20)) throws -> DADOutcome {
        let (box, index) = try macvlan()
        var socket = try NetlinkSocket(in: box.namespace)
        var monitor = try NetlinkMonitor(.addresses, in: box.namespace)
        try socket.addAddress(
            InterfaceAddress(
                try IPAddress(text), prefixLength: 64, on: index, flags: .noPrefixRoute, preferredLifetime: valid,
                validLifetime: valid))
        return try monitor.waitForDAD(
            of: try #require(IPv6Address(text)), on: index, checking: &socket, until: .now + time)
    }

    @Test("ends well where no one else has the address")
    func preferred() throws {
        #expect(try outcome(of: "2001:db8::c1a7") == .preferred)
    }

    @Test(
        "finds an address that another namespace has, whether the kernel keeps it or deletes it",
        arguments: [nil, .seconds(86400)] as [Duration?])
    func duplicate(_ valid: Duration?) throws {
        var far = try NetlinkSocket(in: pair.far)
        try far.addAddress(
            InterfaceAddress(
                try IPAddress("2001:db8::c1a7"), prefixLength: 64, on: pair.farLink.index, flags: .noDAD))
        #expect(try outcome(of: "2001:db8::c1a7", valid: valid) == .duplicate)
    }

    @Test("has not ended at an early deadline")
    func timedOut() throws {
        #expect(try outcome(of: "2001:db8::c1a7", within: .milliseconds(1)) == .timedOut)
    }

    @Test("is told when the address is removed meanwhile")
    func vanished() throws {
        let (box, index) = try macvlan()
        var socket = try NetlinkSocket(in: box.namespace)
        var monitor = try NetlinkMonitor(.addresses, in: box.namespace)
        let address = InterfaceAddress(try IPAddress("2001:db8::c1a7"), prefixLength: 64, on: index)
        try socket.addAddress(address)
        try socket.removeAddress(address)
        let outcome = try monitor.waitForDAD(
            of: try #require(IPv6Address("2001:db8::c1a7")), on: index, checking: &socket, until: soon)
        #expect(outcome == .vanished)
    }
}
