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

    struct Limit: Sendable {
        var what: String
        var packet: [UInt8]
        var gsoSize: UInt16 = 0
        var translated: Bool
    }

    /// Around each limit, by hand: the size of the packet, or of its segments.
    static let limits: [Limit] = [
        Limit(what: "fills the IPv6 MTU", packet: udp4(1452), translated: true),
        Limit(what: "one octet more", packet: udp4(1453), translated: false),
        Limit(what: "segments fill the IPv6 MTU", packet: udp4(2904), gsoSize: 1452, translated: true),
        Limit(what: "segments of one octet more", packet: udp4(2906), gsoSize: 1453, translated: false),
        Limit(what: "TTL that survives", packet: udp4(8, ttl: 2), translated: true),
        Limit(what: "TTL that does not", packet: udp4(8, ttl: 1), translated: false),
        Limit(what: "options", packet: udp4(8, options: 4), translated: false),
        Limit(what: "a fragment", packet: udp4(8, fragment: 0x2000), translated: false),
        Limit(what: "a later fragment", packet: udp4(8, fragment: 1), translated: false),
        Limit(what: "no UDP checksum", packet: udp4(8, checksum: 0), translated: false),
        Limit(what: "multicast", packet: udp4(8, to: [224, 0, 0, 1]), translated: false),
        Limit(what: "our own address", packet: udp4(8, to: [192, 0, 0, 1]), translated: false),
        Limit(what: "loopback", packet: udp4(8, to: [127, 0, 0, 1]), translated: false),
        Limit(what: "private", packet: udp4(8, to: [10, 0, 0, 1]), translated: true),
        Limit(what: "another source", packet: udp4(8, from: [192, 0, 0, 5]), translated: false),
    ]

    @Test("each limit of the kernel path is where it should be", arguments: limits)
    func limit(_ limit: Limit) throws {
        let program = try BPFProgram()
        let configuration = Self.configurations(length: 96)[0]
        try program.configure(clat_config(.any, configuration, kernelPath: true))
        let packet = TestPacket(bytes: limit.packet, gsoSize: limit.gsoSize, isPlain: limit.translated)
        #expect((try program.run(packet, outbound: true) != limit.packet) == limit.translated, "\(limit.what)")
        try program.configure(clat_config(.any, configuration, kernelPath: false))
        #expect(try program.run(packet, outbound: true) == limit.packet, "the kernel path is off")
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
