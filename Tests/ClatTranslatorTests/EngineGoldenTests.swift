import CSteering
import ClatBase
import Glibc
import Testing

@testable import ClatTranslator

/// The kernel path against the translator: the same packets through the loaded programs and through Swift.
@Suite(.enabled(if: geteuid() == 0, "needs root"))
struct EngineGoldenTests {
    static let lengths = [32, 40, 48, 56, 64, 96]

    static func configurations(length: Int) -> [TranslatorConfiguration] {
        guard let prefix = IPv6Prefix(.text("2001:db8:64:aabb:0:ccdd::"), length: length), let pref64 = PREF64(prefix)
        else { preconditionFailure("bad table") }
        var plain = TranslatorConfiguration(
            mappings: [
                Mapping(ipv4: IPv4Address(192, 0, 0, 1), ipv6: .text("2001:db9:1::c1a7"), pref64: pref64),
                Mapping(ipv4: IPv4Address(192, 0, 0, 3), ipv6: .text("2001:db9:1::c1a7"), pref64: .wellKnown),
                .standard4,
            ], ipv6MTU: 1500)
        var other = plain
        other.strictWellKnownPrefix = true
        other.copyTrafficClass = false
        other.hopLimitDecrement = 0
        other.ipv6MTU = 1400
        other.ipv4MTU = 1300
        other.lowestIPv6MTU = 1280
        plain.answerUntranslatable = false
        return [plain, other]
    }

    @Test(
        "what the kernel path translates is what the translator makes of it, the rest it leaves alone",
        arguments: lengths)
    func equal(length: Int) throws {
        for configuration in Self.configurations(length: length) {
            let program = try BPFProgram()
            try program.configure(clat_config(.any, configuration, kernelPath: true))
            for outbound in [true, false] {
                let seed = UInt64.random(in: 0 ... .max)
                var random = RandomPackets(seed: seed, configuration: configuration)
                var bench = Bench(configuration)
                var (plain, translated) = (0, 0)
                for index in 0..<500 {
                    let packet = outbound ? random.ipv4() : random.ipv6()
                    let comment: Comment = "seed \(seed) packet \(index), \(hex(packet.bytes)) gso \(packet.gsoSize)"
                    let result = try program.run(packet, outbound: outbound)
                    if result == packet.bytes {
                        try #require(!packet.isPlain, comment)
                    } else {
                        let expected = bench.packets(packet.bytes, packet.virtio)
                        try #require(expected.count == 1, comment)
                        try #require(withID(of: result, expected[0]) == result, comment)
                        translated += 1
                    }
                    if packet.isPlain { plain += 1 }
                }
                let counts = SteeringCounts(try program.counts())
                let direction = outbound ? counts.outbound : counts.inbound
                #expect(direction.translated.packets == UInt64(translated))
                let bySwift = bench.counters.snapshot()
                #expect(direction.translated == (outbound ? bySwift.outbound : bySwift.inbound))
                #expect(plain > 100 && translated >= plain, "seed \(seed)")
            }
        }
    }

    /// Whether the kernel path makes of a packet what the translator does, or leaves it alone.
    static func isTranslated(
        _ packet: [UInt8], by program: borrowing BPFProgram, _ configuration: TranslatorConfiguration
    ) throws -> Bool {
        let plain = TestPacket(bytes: packet, isPlain: true)
        let result = try program.run(plain, outbound: packet[0] >> 4 == 4)
        if result == packet { return false }
        var bench = Bench(configuration)
        let expected = try #require(bench.packets(packet).first)
        #expect(hex(result) == hex(withID(of: result, expected)))
        return true
    }

    static let golden = [
        GoldenTests.udp4, GoldenTests.echo4,
        "6000000000103a320064ff9b0000000000000000c633640120010db800010002a1b2c3d425a60718810087f6007700010001020304050607",
    ]

    @Test("the golden packets come out of the kernel path too", arguments: golden, [0x25a6, 0xe5f6] as [UInt64])
    func goldenPackets(packet: String, word: UInt64) throws {
        var mapping = Mapping.standard
        // The first word makes it checksum-neutral. A packet that comes in is for that address alone.
        mapping.ipv6.low = mapping.ipv6.low & ~0xffff_0000 | word << 16
        let configuration = TranslatorConfiguration(mappings: [mapping], ipv6MTU: 1500)
        let program = try BPFProgram()
        try program.configure(clat_config(.any, configuration, kernelPath: true))
        let isOurs = packet.hasPrefix("4") || word == 0x25a6
        #expect(try Self.isTranslated(octets(packet), by: program, configuration) == isOurs)
    }

    @Test("of all transports it takes TCP and UDP, under every PREF64 length", arguments: AddressTests.embeddings)
    func transports(prefix: String, address: String) throws {
        var mapping = Mapping.standard
        mapping.pref64 = .text(prefix)
        let configuration = TranslatorConfiguration(mappings: [mapping], ipv6MTU: 1500)
        let program = try BPFProgram()
        try program.configure(clat_config(.any, configuration, kernelPath: true))
        for transport in OutboundTests.transports {
            var outbound = V4(destination: IPv4Address(192, 0, 2, 33), number: transport.number)
            outbound.payload = transport.make(outbound)
            var inbound = V6(source: .text(address), next: transport.number)
            inbound.payload = transport.make(inbound)
            for packet in [outbound.octets, inbound.octets] {
                let isTranslated = try Self.isTranslated(packet, by: program, configuration)
                #expect(isTranslated == ["TCP", "UDP"].contains(transport.name), "\(transport.name)")
            }
        }
    }

    struct Limit: Sendable {
        var what: String
        var packet: [UInt8]
        var gsoSize: UInt16 = 0
        /// Why it is left to the translator; nil where it is translated.
        var passed: SteeringCounts.PassReason?
        /// The IPv4 header it gets has DF, where it gets one.
        var dontFragment: Bool?
    }

    /// Around each limit, by hand: the size of the packet, or of its segments.
    static let limits: [Limit] = [
        Limit(what: "fills the IPv6 MTU", packet: udp4(1452)),
        Limit(what: "one octet more", packet: udp4(1453), passed: .size),
        Limit(what: "segments fill the IPv6 MTU", packet: udp4(2904), gsoSize: 1452),
        Limit(what: "segments of one octet more", packet: udp4(2906), gsoSize: 1453, passed: .size),
        Limit(what: "TTL that survives", packet: udp4(8, ttl: 2)),
        Limit(what: "TTL that does not", packet: udp4(8, ttl: 1), passed: .hopLimit),
        Limit(what: "options", packet: udp4(8, options: 4), passed: .header),
        Limit(what: "a length that is not the packet's", packet: udp4(8) + [0], passed: .header),
        Limit(what: "a fragment", packet: udp4(8, fragment: 0x2000), passed: .fragment),
        Limit(what: "a later fragment", packet: udp4(8, fragment: 1), passed: .fragment),
        Limit(what: "no UDP checksum", packet: udp4(8, checksum: 0), passed: .transport),
        Limit(what: "multicast", packet: udp4(8, to: [224, 0, 0, 1]), passed: .address),
        Limit(what: "our own address", packet: udp4(8, to: [192, 0, 0, 1]), passed: .address),
        Limit(what: "loopback", packet: udp4(8, to: [127, 0, 0, 1]), passed: .address),
        Limit(what: "private", packet: udp4(8, to: [10, 0, 0, 1])),
        Limit(what: "another source", packet: udp4(8, from: [192, 0, 0, 5]), passed: .address),
        Limit(what: "from the network, small", packet: udp6(1232), dontFragment: false),
        Limit(what: "1261 octets of IPv4", packet: udp6(1233), dontFragment: true),
        Limit(what: "fills the IPv4 MTU", packet: udp6(1272), dontFragment: true),
        Limit(what: "one octet more than that", packet: udp6(1273), passed: .size),
        Limit(what: "segments fill the IPv4 MTU", packet: udp6(2544), gsoSize: 1272, dontFragment: true),
        Limit(what: "segments of more", packet: udp6(2546), gsoSize: 1273, passed: .size),
        Limit(what: "hop limit that survives", packet: udp6(8) { $0[7] = 2 }, dontFragment: false),
        Limit(what: "hop limit that does not", packet: udp6(8) { $0[7] = 1 }, passed: .hopLimit),
        Limit(what: "a payload length that is too large", packet: udp6(8) { $0[5] += 1 }, passed: .header),
        Limit(what: "a payload length that is too small", packet: udp6(8) { $0[5] -= 1 }, passed: .header),
        Limit(what: "another version", packet: udp6(8) { $0[0] = 0x50 }, passed: .header),
        Limit(what: "a fragment from the network", packet: udp6(8) { $0[6] = 44 }, passed: .fragment),
        Limit(what: "ICMP of IPv4 in IPv6", packet: udp6(8) { $0[6] = 1 }, passed: .transport),
        Limit(what: "no UDP checksum in IPv6", packet: udp6(8) { $0[46...47] = [0, 0] }, passed: .transport),
        Limit(what: "from a multicast address", packet: udp6(8) { $0[20] = 224 }, passed: .address),
    ]

    @Test("each limit of the kernel path is where it should be, and counted by reason", arguments: limits)
    func limit(_ limit: Limit) throws {
        let program = try BPFProgram()
        var configuration = Self.configurations(length: 96)[0]
        configuration.ipv4MTU = 1300
        try program.configure(clat_config(.any, configuration, kernelPath: true))
        let outbound = limit.dontFragment == nil && limit.packet[0] >> 4 == 4
        let packet = TestPacket(bytes: limit.packet, gsoSize: limit.gsoSize, isPlain: limit.passed == nil)
        let result = try program.run(packet, outbound: outbound)
        #expect((result == limit.packet) == (limit.passed != nil), "\(limit.what)")
        if let dontFragment = limit.dontFragment { #expect((result[6] & 0x40 != 0) == dontFragment) }
        let counts = SteeringCounts(try program.counts())
        let passed = (outbound ? counts.outbound : counts.inbound).passed.filter { $0.value > 0 }
        #expect(passed == (limit.passed.map { [$0: 1] } ?? [:]))
        try program.configure(clat_config(.any, configuration, kernelPath: false))
        #expect(try program.run(packet, outbound: outbound) == limit.packet, "the kernel path is off")
    }

    @Test("a reason has a name for each that the program knows")
    func reasons() {
        #expect(SteeringCounts.PassReason.allCases.count == Int(CLAT_REASONS.rawValue))
    }

    @Test("the frame for the host carries the veth's addresses, and identifications differ")
    func link() throws {
        let program = try BPFProgram()
        let configuration = Self.configurations(length: 96)[0]
        try program.configure(clat_config(.any, configuration, kernelPath: true))
        var random = RandomPackets(seed: 1, configuration: configuration)
        var identifications: Set<[UInt8]> = []
        for _ in 0..<64 {
            let packet = random.plainIPv6(payload: 100)
            let frame = try program.fromUplink.run(on: zeros(12) + [0x86, 0xdd] + packet).frame
            #expect(Array(frame.prefix(14)) == [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0])
            identifications.insert(Array(frame[18..<20]))
        }
        #expect(identifications.count > 32 && !identifications.contains([0, 0]))
    }
}

extension Mapping {
    fileprivate static let standard4 = Mapping(
        ipv4: IPv4Address(192, 0, 0, 4), ipv6: Mapping.standard.ipv6, pref64: .wellKnown)
}

/// UDP from 198.51.100.1 to the first mapping of a configuration with a PREF64 of length 96, with whatever checksum.
private func udp6(_ payload: Int, _ change: (inout [UInt8]) -> Void = { _ in }) -> [UInt8] {
    let mapping = EngineGoldenTests.configurations(length: 96)[0].mappings[0]
    let length = [UInt8((8 + payload) >> 8), UInt8((8 + payload) & 0xff)]
    var packet = ipv6(
        "\(mapping.pref64.embed(IPv4Address(198, 51, 100, 1)))", "\(mapping.ipv6)", 17,
        [0, 7, 0, 7] + length + [0x12, 0x34] + zeros(payload))
    change(&packet)
    return packet
}

/// The expected packet with the identification that was chosen, where IPv4 packets have one.
private func withID(of result: [UInt8], _ expected: [UInt8]) -> [UInt8] {
    guard expected[0] >> 4 == 4, expected[6] & 0x40 == 0, result.count >= 20, result[4..<6] != [0, 0] else {
        return expected
    }
    var packet = expected
    packet.replaceSubrange(4..<6, with: result[4..<6])
    packet.replaceSubrange(10..<12, with: [0, 0])
    let sum = ~slowSum(Array(packet.prefix(20)))
    packet.replaceSubrange(10..<12, with: [UInt8(sum >> 8), UInt8(sum & 0xff)])
    return packet
}

extension BPFProgram {
    /// The IP packet that one program makes of another; it must be on its way somewhere.
    borrowing func run(_ packet: TestPacket, outbound: Bool) throws -> [UInt8] {
        let type: [UInt8] = outbound ? [8, 0] : [0x86, 0xdd]
        let frame = zeros(12) + type + packet.bytes
        let result =
            outbound
            ? try fromHost.run(on: frame, gsoSize: UInt32(packet.gsoSize))
            : try fromUplink.run(on: frame, gsoSize: UInt32(packet.gsoSize))
        #expect(result.verdict == .redirect || result.verdict == .pass)
        let newType = result.frame[12..<14]
        #expect(newType == (result.frame[14] >> 4 == 4 ? [8, 0] : [0x86, 0xdd]))
        return Array(result.frame.dropFirst(14))
    }
}
