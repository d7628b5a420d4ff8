import ClatBase
import Testing

@testable import ClatTranslator

@Suite("Headers and checksums")
struct HeaderTests {
    /// What `write` leaves in 0xa5 octets, with 4 to spare on either side.
    func written(_ size: Int, _ write: (inout MutableRawSpan, Int) -> Void) -> [UInt8] {
        var memory = [UInt8](repeating: 0xa5, count: size + 8)
        var span = memory.mutableSpan
        var bytes = span.mutableBytes
        write(&bytes, 4)
        #expect(Array(memory.prefix(4) + memory.suffix(4)) == [UInt8](repeating: 0xa5, count: 8))
        return Array(memory[4..<4 + size])
    }

    @Test("An IPv4 header is written octet by octet and read back")
    func ipv4() throws {
        let header = IPv4Header(
            trafficClass: 0xb8, totalLength: 0x1234, identification: 0xbeef, fragmentField: 0x2001, ttl: 63,
            protocolNumber: 17, source: 0xc000_0001, destination: 0xc633_6401)
        let bytes = written(20) { header.store(into: &$0, at: $1) }
        #expect(hex(bytes) == "45b81234beef20013f119fdac0000001c6336401")
        #expect(slowSum(bytes) == 0xffff)
        let parsed = IPv4Header(bytes.span.bytes)
        let read = try #require(parsed)
        #expect(read.trafficClass == 0xb8 && read.totalLength == 0x1234 && read.identification == 0xbeef)
        #expect(read.fragment == Fragment(offset: 8, more: true, identification: 0xbeef))
        #expect(read.ttl == 63 && read.protocolNumber == 17)
        #expect(read.source == 0xc000_0001 && read.destination == 0xc633_6401)
    }

    @Test("An IPv6 header is written octet by octet and read back")
    func ipv6() throws {
        let header = IPv6Header(
            trafficClass: 0xb8, payloadLength: 0x1234, nextHeader: 58, hopLimit: 63,
            sourceHigh: 0x0102_0304_0506_0708, sourceLow: 0x090a_0b0c_0d0e_0f10,
            destinationHigh: 0x1112_1314_1516_1718, destinationLow: 0x191a_1b1c_1d1e_1f20)
        let bytes = written(40) { header.store(into: &$0, at: $1) }
        #expect(
            hex(bytes) == "6b80000012343a3f0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20")
        let parsed = IPv6Header(bytes.span.bytes)
        let read = try #require(parsed)
        #expect(read.trafficClass == 0xb8 && read.payloadLength == 0x1234 && read.nextHeader == 58)
        #expect(read.hopLimit == 63 && read.sourceLow == header.sourceLow)
        #expect(read.destinationHigh == header.destinationHigh)
    }

    @Test("A Fragment header is written octet by octet and read back")
    func fragment() {
        let fragment = Fragment(offset: 1232, more: false, identification: 0xbeef)
        let bytes = written(8) { fragment.store(nextHeader: 17, into: &$0, at: $1) }
        #expect(hex(bytes) == "110004d00000beef")
        let read = Fragment(bytes.span.bytes)
        #expect(read == fragment)
    }

    @Test("A virtio_net_hdr is in the machine's byte order")
    func offload() {
        var virtio = Virtio(partialAt: 20, offset: 16)
        (virtio.gsoType, virtio.gsoSize, virtio.headerLength) = (0x81, 1448, 52)
        let offload = Offload(virtio.bytes.span.bytes, at: 0)
        let bytes = written(10) { offload.store(into: &$0, at: $1) }
        #expect(Virtio(bytes) == virtio)
        #expect(offload.needsChecksum && offload.isGSO && offload.segments(6, tcpType: 1))
    }

    static let lengths = Array(0...40) + [1499, 1500, 65535]

    @Test("The fast sum equals the slow one", arguments: lengths)
    func sum(length: Int) {
        let bytes = pattern(length)
        let fast = Checksum.sum(bytes.span.bytes)
        #expect(fast == slowSum(bytes) || (fast == 0xffff && slowSum(bytes) == 0))
    }

    static let malformedIPv4: [(String, [UInt8])] = [
        ("nothing", []), ("19 octets", Array(V4().octets.prefix(19))), ("version 6", [0x65] + V4().octets.dropFirst()),
        ("IHL 4", [0x44] + V4().octets.dropFirst()), ("IHL past the end", [0x46] + V4().octets.dropFirst()),
        ("total length below IHL", V4(totalLength: 19).octets),
    ]

    @Test("A broken IPv4 header is not read", arguments: malformedIPv4)
    func malformed(name: String, bytes: [UInt8]) {
        let isRead = IPv4Header(bytes.span.bytes) != nil
        #expect(!isRead)
    }

    static let options: [(String, Bool)] = [
        ("830704c6336407", true), ("83 07 08 c6336407", false), ("89 0b 08 c6336407 c6336408", true),
        ("01 01 01 83 07 04 c6336407", true), ("00 83 07 04 c6336407", false), ("94 04 0000 83 07 04 c6336407", true),
        ("83 01 04", false), ("83 0f 04 00", false), ("83", false), ("07 07 04 00000000", false), ("", false),
        ("83 02 83 07 04 c6336407", true),
    ]

    @Test("A source route with hops left is found among IPv4 options", arguments: options)
    func sourceRoute(text: String, expected: Bool) {
        let options = octets(text)
        let asks = IPv4Header.asksForSourceRoute(options.span.bytes)
        #expect(asks == expected)
    }
}
