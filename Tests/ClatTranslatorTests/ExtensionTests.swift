import ClatBase
import Testing

@testable import ClatTranslator

@Suite("Extensions of ICMP errors (RFC 4884)")
struct ExtensionTests {
    /// A structure of opaque objects with a right checksum.
    static func structure(_ objects: [UInt8]) -> [UInt8] {
        var bytes: [UInt8] = [0x20, 0, 0, 0] + objects
        put(~slowSum(bytes), 2, &bytes)
        return bytes
    }
    static let object = octets("0008 0101 00012a40")
    static let nodeObject = octets("00180504 00020000 20010db8ffff00000000000000000001")
    static let native = IPv6Address.text("2001:db8:ffff::1")

    /// Zero-padded.
    static func padded(_ bytes: [UInt8], _ size: Int) -> [UInt8] {
        bytes.prefix(size) + [UInt8](repeating: 0, count: max(0, size - bytes.count))
    }

    @Test(
        "Extensions are kept from IPv6 to IPv4 and the datagram padded to 128 octets", arguments: [128, 136, 200, 256])
    func toIPv4(length: Int) {
        var bench = Bench()
        let quoted = Self.padded(ErrorTests.quoted(300), length)
        let input = V6().icmp(1, 4, [UInt8(length / 8), 0, 0, 0], quoted + Self.structure(Self.object))
        let size = max(128, length - 20)
        let expected = inbound().icmp(
            3, 3, [0, UInt8(size / 4), 0, 0],
            Self.padded(Array(ErrorTests.sent(300).prefix(length - 20)), size) + Self.structure(Self.object))
        #expect(bench.hex(input.octets) == hex(expected.octets))
    }

    @Test("Extensions are kept from IPv4 to IPv6 and the datagram padded to 8 octets", arguments: [128, 132, 200, 256])
    func toIPv6(length: Int) {
        var bench = Bench()
        let quoted = Self.padded(ErrorTests.received(300), length)
        let input = V4().icmp(11, 0, [0, UInt8(length / 4), 0, 0], quoted + Self.structure(Self.object))
        let size = (length + 20 + 7) & ~7
        let expected = outbound().icmp(
            3, 0, [UInt8(size / 8), 0, 0, 0],
            Self.padded(Array(ErrorTests.came(300).prefix(length + 20)), size) + Self.structure(Self.object))
        #expect(bench.hex(input.octets) == hex(expected.octets))
    }

    @Test("128 octets become 152 in IPv6, length 19")
    func minimum() {
        var bench = Bench()
        let quoted = Self.padded(ErrorTests.received(20), 128)
        let output =
            bench.packets(
                V4().icmp(3, 3, [0, 32, 0, 0], quoted + Self.structure(Self.object)).octets
            ).first ?? []
        #expect(output[44] == 19)
        #expect(output.count == 48 + 152 + 12)
    }

    @Test("Extensions are stripped where ICMPv6 has none", arguments: [(3, 4, 2, 0), (12, 0, 4, 0), (3, 2, 4, 1)])
    func stripped(types: (UInt8, UInt8, UInt8, UInt8)) {
        var bench = Bench()
        let quoted = Self.padded(ErrorTests.received(300), 128)
        let second: [UInt8] = types.0 == 12 ? [8, 32, 0, 0] : [0, 32, 5, 0x78]
        let input = V4().icmp(types.0, types.1, second, quoted + Self.structure(Self.object))
        let rest: [UInt8] = types.2 == 2 ? [0, 0, 5, 0x8c] : [0, 0, 0, types.0 == 12 ? 7 : 6]
        let expected = outbound().icmp(types.2, types.3, rest, Array(ErrorTests.came(300).prefix(148)))
        #expect(bench.hex(input.octets) == hex(expected.octets))
    }

    static let absent: [(name: String, attribute: UInt8, rest: [UInt8])] = [
        ("no length", 0, structure(object)), ("length below 128", 15, structure(object)),
        ("length past the end", 40, structure(object)),
    ]

    @Test("Without a right length there are no extensions, whatever follows", arguments: absent)
    func absentExtensions(name: String, attribute: UInt8, rest: [UInt8]) {
        var bench = Bench()
        let quoted = Self.padded(ErrorTests.quoted(300), 128) + rest
        let expected = inbound().icmp(
            3, 3, [0, 0, 0, 0], Array(ErrorTests.sent(300).prefix(108)) + rest)
        #expect(bench.hex(V6().icmp(1, 4, [attribute, 0, 0, 0], quoted).octets) == hex(expected.octets))
    }

    static let broken: [(name: String, rest: [UInt8])] = [
        ("wrong checksum", [0x20, 0, 1, 2] + object), ("version 1", [0x10, 0, 0, 0] + object), ("cut", [0x20, 0]),
        ("odd", [0x20, 0, 0, 0, 1]), ("nothing", []),
    ]

    @Test("A broken structure is left out", arguments: broken)
    func brokenStructure(name: String, rest: [UInt8]) {
        var bench = Bench()
        let quoted = Self.padded(ErrorTests.quoted(300), 128)
        let expected = inbound().icmp(3, 3, [0, 0, 0, 0], Array(ErrorTests.sent(300).prefix(108)))
        #expect(bench.hex(V6().icmp(1, 4, [16, 0, 0, 0], quoted + rest).octets) == hex(expected.octets))
    }

    @Test("Node Identification joins the extensions that are there")
    func joined() {
        var bench = Bench()
        let quoted = Self.padded(ErrorTests.quoted(300), 200)
        let input = V6(source: Self.native).icmp(3, 0, [25, 0, 0, 0], quoted + Self.structure(Self.object))
        let expected = inbound { $0.source = IPv4Address(192, 0, 0, 8) }.icmp(
            11, 0, [0, 45, 0, 0],
            Array(ErrorTests.sent(300).prefix(180)) + Self.structure(Self.object + Self.nodeObject))
        #expect(bench.hex(input.octets) == hex(expected.octets))
    }

    static let identified:
        [(type: UInt8, code: UInt8, second: String, outType: UInt8, outCode: UInt8, outSecond: String)] = [
            (1, 0, "00000000", 3, 1, "00200000"), (2, 0, "00000500", 3, 4, "002004ec"),
            (3, 1, "00000000", 11, 1, "00200000"),
            (4, 0, "00000007", 12, 0, "08200000"), (4, 1, "00000006", 3, 2, "00200000"),
        ]

    @Test("Every kind of error from outside says who sent it, Packet Too Big too", arguments: identified)
    func everyKind(
        type: UInt8, code: UInt8, second: String, outType: UInt8, outCode: UInt8, outSecond: String
    ) {
        var bench = Bench()
        let input = V6(source: Self.native).icmp(type, code, octets(second), ErrorTests.quoted(40))
        let expected = inbound { $0.source = IPv4Address(192, 0, 0, 8) }.icmp(
            outType, outCode, octets(outSecond), Self.padded(ErrorTests.sent(40), 128) + Self.structure(Self.nodeObject)
        )
        #expect(bench.hex(input.octets) == hex(expected.octets))
    }

    @Test("An error from the PREF64 never says so")
    func notFromInside() {
        var bench = Bench()
        let output = bench.packets(V6().icmp(3, 0, [0, 0, 0, 0], ErrorTests.quoted(40)).octets).first
        #expect(output?.count == 28 + 68)
    }

    @Test("With extensions an ICMP error has at most 576 octets", arguments: [400, 401, 403, 480, 492, 493, 900, 1180])
    func limit(size: Int) {
        var bench = Bench()
        let output = bench.frames(V6(source: Self.native).icmp(3, 0, [0, 0, 0, 0], ErrorTests.quoted(size)).octets)
        let packet = output.first ?? []
        #expect(packet.count - 10 == min(576, 28 + 28 + (28 + size + 3) & ~3))
        #expect(Int(packet[10 + 20 + 5]) * 4 == packet.count - 10 - 28 - 28)
        #expect(fault(packet) == nil)
    }

    @Test("With large extensions an ICMPv6 error still has at most 1280 octets", arguments: [212, 216, 220, 224])
    func limitToIPv6(size: Int) {
        var bench = Bench()
        let quoted = Array(ErrorTests.received(1100).prefix(1020))
        let objects = word(size) + [1, 1] + [UInt8](repeating: 7, count: size - 4)
        let frames = bench.frames(V4().icmp(3, 1, [0, 255, 0, 0], quoted + Self.structure(objects)).octets)
        let packet = frames.first ?? []
        #expect(Int(packet[10 + 44]) * 8 == packet.count - 10 - 48 - 4 - size)
        #expect(packet.count - 10 <= 1280 && packet.count - 10 > 1272)
        #expect(fault(packet) == nil)
    }

    @Test("Extensions too large for 576 octets give way")
    func tooLarge() {
        var bench = Bench()
        let quoted = Self.padded(ErrorTests.quoted(300), 128)
        let large = Self.structure([0x01, 0xa4, 1, 1] + [UInt8](repeating: 7, count: 416))
        let input = V6().icmp(1, 4, [16, 0, 0, 0], quoted + large)
        #expect(bench.packets(input.octets).first?.count == 28 + 108)
        let native = V6(source: Self.native).icmp(
            1, 4, [16, 0, 0, 0], quoted + Self.structure([UInt8](repeating: 7, count: 400)))
        #expect(bench.packets(native.octets).first?.count == 28 + 128 + 28)
    }
}
