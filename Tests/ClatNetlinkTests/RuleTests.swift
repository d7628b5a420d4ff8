import ClatBase
import Glibc
import Testing

@testable import ClatNetlink

@Suite("Rules of a kernel", .enabled(if: geteuid() == 0, "needs root"))
struct RuleTests {
    let box: NamespaceBox
    init() throws { box = try NamespaceBox() }

    static func all() throws -> [Rule] {
        let prefix = try #require(IPPrefix(try IPAddress("64:ff9b::"), length: 96))
        let network = try #require(IPPrefix(try IPAddress("192.0.0.0"), length: 29))
        let icmpv6 = UInt8(IPPROTO_ICMPV6)
        let table = RouteTable(rawValue: 464)
        return [
            Rule(.ipv6, priority: 10, from: prefix, by: "nowhere", table: table),
            Rule(.ipv6, priority: 20, by: "lo", transport: icmpv6, table: .local),
            Rule(.ipv6, priority: 30, from: prefix, to: IPPrefix(try IPAddress("2001:db8::1")), table: table),
            Rule(.ipv6, priority: 0xffff_ffff, table: table),
            Rule(.ipv4, priority: 7, from: network, transport: 17, table: .main, origin: .boot),
        ]
    }

    @Test("A rule is added, read back as it was, and removed", arguments: 0..<5)
    func addAndRemove(_ index: Int) throws {
        let rule = try Self.all()[index]
        var socket = try NetlinkSocket(in: box.namespace)
        let born = try socket.rules(rule.family)
        try socket.addRule(rule)
        #expect(Set(try socket.rules(rule.family)) == Set(born + [rule]))
        #expect(#expect(throws: NetlinkError.self) { try socket.addRule(rule) }?.code == EEXIST)
        try socket.removeRule(rule)
        #expect(try socket.rules(rule.family) == born)
        #expect(#expect(throws: NetlinkError.self) { try socket.removeRule(rule) }?.code == ENOENT)
    }

    @Test("Other programs see the rule as it was meant")
    func shown() throws {
        var socket = try NetlinkSocket(in: box.namespace)
        for rule in try Self.all() where rule.family == .ipv6 { try socket.addRule(rule) }
        let text = try output(of: "ip -6 rule", in: box.namespace)
        #expect(text.contains("10:\tfrom 64:ff9b::/96 iif nowhere [detached] lookup 464 proto static"))
        #expect(text.contains("20:\tfrom all iif lo ipproto ipv6-icmp lookup local proto static"))
        #expect(text.contains("30:\tfrom 64:ff9b::/96 to 2001:db8::1 lookup 464 proto static"))
    }

    @Test("The rule for local addresses, of priority 0, can be moved", arguments: AddressFamily.allCases)
    func moveLocal(_ family: AddressFamily) throws {
        var socket = try NetlinkSocket(in: box.namespace)
        let first = try #require(try socket.rules(family).first)
        #expect(first == Rule(family, priority: 0, table: .local, origin: .kernel))
        let moved = Rule(family, priority: 100, table: .local)
        try socket.addRule(moved)
        try socket.removeRule(first)
        #expect(try socket.rules(family).first == moved)
    }
}
