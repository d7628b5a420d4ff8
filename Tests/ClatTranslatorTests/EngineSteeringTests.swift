import CSteering
import ClatBase
import Glibc
import Testing

@testable import ClatTranslator

/// Which packets the programs give to the translator, decided by running the loaded programs on bytes.
@Suite(.enabled(if: geteuid() == 0, "needs root"))
struct EngineSteeringTests {
    static let clat = "2001:db8:1::c1a7"
    static let draining = "2001:db8:2::c1a7"
    static let behind = "2001:db8:64::c633:6401"
    static let outside = "2001:db8:ffff::1"

    static let configuration = TranslatorConfiguration(
        mappings: [
            mapping(1, clat, "2001:db8:64::/96"), mapping(2, draining, "2001:db8:64::/96"),
            mapping(3, "2001:db8:3:1::c1a7", "2001:db8:3::/48"),
        ], ipv6MTU: 1500)

    static func mapping(_ last: UInt8, _ ipv6: String, _ pref64: String) -> Mapping {
        guard let ipv6 = IPv6Address(ipv6), let pref64 = PREF64(pref64) else { preconditionFailure("bad table") }
        return Mapping(ipv4: IPv4Address(192, 0, 0, last), ipv6: ipv6, pref64: pref64)
    }

    struct Arrival: Sendable, CustomTestStringConvertible {
        var what: String
        var packet: [UInt8]
        var taken: Bool
        var testDescription: String { what }
    }

    static let arrivals: [Arrival] = [
        Arrival(what: "TCP from PREF64", packet: ipv6(behind, clat, 6, zeros(20)), taken: true),
        Arrival(what: "TCP to a draining address", packet: ipv6(behind, draining, 6, zeros(20)), taken: true),
        Arrival(what: "TCP to another address", packet: ipv6(behind, "2001:db8:1::5", 6, zeros(20)), taken: false),
        Arrival(what: "ESP from PREF64", packet: ipv6(behind, clat, 50, zeros(20)), taken: true),
        Arrival(what: "echo request from PREF64", packet: ipv6(behind, clat, 58, [128, 0] + zeros(6)), taken: true),
        Arrival(what: "solicitation from PREF64", packet: ipv6(behind, clat, 58, [135, 0] + zeros(22)), taken: false),
        Arrival(
            what: "fragment of ICMPv6 from PREF64", packet: ipv6(behind, clat, 44, [58, 0, 0, 1] + zeros(12)),
            taken: true),
        Arrival(what: "native echo request", packet: ipv6(outside, clat, 58, [128, 0] + zeros(6)), taken: false),
        Arrival(what: "native echo reply", packet: ipv6(outside, clat, 58, [129, 0] + zeros(6)), taken: false),
        Arrival(what: "neighbour solicitation", packet: ipv6("fe80::1", clat, 58, [135, 0] + zeros(22)), taken: false),
        Arrival(what: "neighbour advertisement", packet: ipv6(outside, clat, 58, [136, 0] + zeros(22)), taken: false),
        Arrival(
            what: "MLD query", packet: ipv6("fe80::1", clat, 0, [58, 0, 5, 2, 0, 0, 1, 0, 130] + zeros(27)),
            taken: false),
        Arrival(what: "native UDP", packet: ipv6(outside, clat, 17, zeros(8)), taken: true),
        Arrival(
            what: "native UDP after extension headers",
            packet: ipv6(outside, clat, 0, [60, 0] + zeros(6) + [43, 0] + zeros(6) + [17, 0] + zeros(14)), taken: true),
        Arrival(
            what: "native echo request after extension headers",
            packet: ipv6(outside, clat, 0, [60, 0] + zeros(6) + [58, 0] + zeros(6) + [128] + zeros(7)), taken: false),
        Arrival(
            what: "native echo request in an atomic fragment",
            packet: ipv6(outside, clat, 44, [58, 0, 0, 0] + zeros(4) + [128] + zeros(7)), taken: false),
        Arrival(
            what: "native fragment of ICMPv6", packet: ipv6(outside, clat, 44, [58, 0, 0, 1] + zeros(12)), taken: false),
        Arrival(
            what: "native fragment of UDP", packet: ipv6(outside, clat, 44, [17, 0, 0, 8] + zeros(12)), taken: true),
        Arrival(
            what: "native, extension headers without end", packet: ipv6(outside, clat, 60, zeros(8) + [60, 9]),
            taken: false),
        Arrival(
            what: "from PREF64, extension headers without end", packet: ipv6(behind, clat, 60, zeros(8) + [60, 9]),
            taken: true),
        Arrival(what: "error about our packet", packet: error(1, about: ipv6(clat, behind, 17, zeros(8))), taken: true),
        Arrival(
            what: "Packet Too Big about our packet", packet: error(2, about: ipv6(clat, behind, 6, zeros(8))),
            taken: true),
        Arrival(
            what: "Time Exceeded about our packet", packet: error(3, about: ipv6(clat, behind, 17, [])), taken: true),
        Arrival(
            what: "error about a native packet of ours", packet: error(1, about: ipv6(clat, outside, 58, zeros(8))),
            taken: false),
        Arrival(
            what: "error about someone else's packet", packet: error(1, about: ipv6(outside, behind, 17, zeros(8))),
            taken: false),
        Arrival(
            what: "error too short to tell", packet: error(1, about: Array(ipv6(clat, behind, 17, []).prefix(39))),
            taken: false),
        Arrival(
            what: "behind a /48", packet: ipv6("2001:db8:3:c633:64:100::", "2001:db8:3:1::c1a7", 58, [128] + zeros(7)),
            taken: true),
        Arrival(
            what: "in a /48, octet 8 not zero",
            packet: ipv6("2001:db8:3:c633:164:100::", "2001:db8:3:1::c1a7", 58, [128] + zeros(7)), taken: false),
        Arrival(
            what: "in a /48 and in our own /64",
            packet: ipv6("2001:db8:3:1::1", "2001:db8:3:1::c1a7", 58, [128] + zeros(7)), taken: false),
        Arrival(what: "IPv4", packet: [0x45, 0, 0, 20] + zeros(16), taken: false),
    ]

    @Test("from the uplink, the translator gets its packets and the stack keeps the rest", arguments: arrivals)
    func uplink(_ arrival: Arrival) throws {
        let program = try BPFProgram()
        try program.configure(clat_config(.any, Self.configuration, kernelPath: false))
        let ethernet = zeros(12) + (arrival.packet.first.map { $0 >> 4 } == 4 ? [8, 0] : [0x86, 0xdd])
        let result = try program.fromUplink.run(on: ethernet + arrival.packet)
        #expect(result.verdict == (arrival.taken ? .redirect : .pass))
        #expect(result.frame == ethernet + arrival.packet)
        let counts = SteeringCounts(try program.counts())
        #expect(counts.inbound.toTranslator == (arrival.taken ? 1 : 0))
    }

    @Test("a frame for another station is not ours")
    func otherStation() throws {
        let program = try BPFProgram()
        try program.configure(clat_config(.any, Self.configuration, kernelPath: false))
        let frame = [2] + zeros(11) + [0x86, 0xdd] + ipv6(Self.behind, Self.clat, 6, zeros(20))
        #expect(try program.fromUplink.run(on: frame).verdict == .pass)
    }

    @Test("from the host, IPv4 goes to the translator and nothing else goes anywhere")
    func host() throws {
        let program = try BPFProgram()
        try program.configure(clat_config(.any, Self.configuration, kernelPath: false))
        #expect(try program.fromHost.run(on: zeros(12) + [8, 0, 0x45] + zeros(19)).verdict == .redirect)
        #expect(try program.fromHost.run(on: zeros(12) + [0x86, 0xdd, 0x60] + zeros(39)).verdict == .drop)
        let counts = SteeringCounts(try program.counts())
        #expect(counts.outbound.toTranslator == 1 && counts.ignored == 1)
    }

    @Test("before the first configuration nothing is translated and the stack works")
    func unconfigured() throws {
        let program = try BPFProgram()
        #expect(try program.fromHost.run(on: zeros(12) + [8, 0, 0x45] + zeros(19)).verdict == .drop)
        let frame = zeros(12) + [0x86, 0xdd] + ipv6(Self.behind, Self.clat, 6, zeros(20))
        #expect(try program.fromUplink.run(on: frame).verdict == .pass)
    }

    @Test("a configuration replaces the one before it")
    func update() throws {
        let program = try BPFProgram()
        let frame = zeros(12) + [0x86, 0xdd] + ipv6(Self.behind, Self.clat, 6, zeros(20))
        var configuration = Self.configuration
        for taken in [true, false, true] {
            configuration.mappings = taken ? Self.configuration.mappings : []
            try program.configure(clat_config(.any, configuration, kernelPath: false))
            #expect(try program.fromUplink.run(on: frame).verdict == (taken ? .redirect : .pass))
        }
    }
}

/// An ICMPv6 error from outside PREF64 to the CLAT address.
private func error(_ type: UInt8, about packet: [UInt8]) -> [UInt8] {
    ipv6(EngineSteeringTests.outside, EngineSteeringTests.clat, 58, [type, 0] + zeros(6) + packet)
}
