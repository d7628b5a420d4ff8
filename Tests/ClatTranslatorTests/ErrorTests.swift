import ClatBase
import Testing

@testable import ClatTranslator

@Suite("Translated ICMP errors")
struct ErrorTests {
    static let timeExceeded =
        "6000000000583a3e20010db8ffff0000000000000000000120010db800010002a1b2c3d425a6071803009dc100000000"
        + "6000000000281101" + "20010db800010002a1b2c3d425a607180064ff9b0000000000000000c6336401"
        + "9c40829a0028f68c" + String(repeating: "00", count: 32)
    static let embeddedProbe =
        "4500003c000000000111cf7bc0000001c63364019c40829a0028f68c" + String(repeating: "00", count: 32)

    @Test("A Time Exceeded from a native router comes from 192.0.0.8")
    func dummySource() {
        var configuration = TranslatorConfiguration.standard
        configuration.nodeIdentification = false
        var bench = Bench(configuration)
        #expect(
            bench.hex(octets(Self.timeExceeded))
                == "45000058000000003d01fd9bc0000008c00000010b00df6f00000000" + Self.embeddedProbe)
    }

    @Test("It carries the router's address in a Node Identification object")
    func nodeIdentification() {
        var bench = Bench()
        let expected =
            "450000b8000000003d01fd3bc0000008c00000010b00df4f00200000" + Self.embeddedProbe
            + String(repeating: "00", count: 68) + "2000ad27001805040002000020010db8ffff00000000000000000001"
        #expect(bench.hex(octets(Self.timeExceeded)) == expected)
    }

    /// A packet of ours as the network quotes it, and as the host sent it.
    static func quoted(_ size: Int, _ change: (inout V6) -> Void = { _ in }) -> [UInt8] {
        outbound(change).with { $0.udp(pattern(size)) }.octets
    }
    static func sent(_ size: Int, identification: Int = 0, dontFragment: Bool = false) -> [UInt8] {
        V4(identification: identification, dontFragment: dontFragment, ttl: 63).with { $0.udp(pattern(size)) }.octets
    }

    /// A packet of the network's as the host got it and quotes it, and as the network sent it.
    static func received(_ size: Int) -> [UInt8] { inbound().with { $0.udp(pattern(size)) }.octets }
    static func came(_ size: Int) -> [UInt8] { V6(hopLimit: 63).with { $0.udp(pattern(size)) }.octets }

    static let toIPv4: [(type: UInt8, code: UInt8, second: String, outType: UInt8, outCode: UInt8, outSecond: String)] =
        [
            (1, 0, "00000000", 3, 1, "00000000"), (1, 1, "00000000", 3, 10, "00000000"),
            (1, 4, "00000000", 3, 3, "00000000"),
            (2, 0, "000005dc", 3, 4, "000005c8"), (2, 0, "00000500", 3, 4, "000004ec"),
            (3, 0, "00000000", 11, 0, "00000000"),
            (3, 1, "00000000", 11, 1, "00000000"), (4, 0, "00000007", 12, 0, "08000000"),
            (4, 0, "00000018", 12, 0, "10000000"),
            (4, 1, "00000006", 3, 2, "00000000"),
        ]

    @Test("An ICMPv6 error from the PREF64 keeps its source and translates the packet in it", arguments: toIPv4)
    func errorToIPv4(
        type: UInt8, code: UInt8, second: String, outType: UInt8, outCode: UInt8, outSecond: String
    ) {
        var bench = Bench()
        let input = V6(source: .text("64:ff9b::203.0.113.9")).icmp(type, code, octets(second), Self.quoted(40))
        let expected = inbound { $0.source = IPv4Address(203, 0, 113, 9) }
            .icmp(outType, outCode, octets(outSecond), Self.sent(40))
        #expect(bench.hex(input.octets) == hex(expected.octets))
    }

    static let toIPv6: [(type: UInt8, code: UInt8, second: String, outType: UInt8, outCode: UInt8, outSecond: String)] =
        [
            (3, 1, "00000000", 1, 0, "00000000"), (3, 3, "00000000", 1, 4, "00000000"),
            (3, 13, "00000000", 1, 1, "00000000"),
            (3, 4, "00000578", 2, 0, "0000058c"), (3, 4, "000005c8", 2, 0, "000005dc"),
            (3, 4, "00000000", 2, 0, "00000500"),
            (3, 2, "00000000", 4, 1, "00000006"), (11, 1, "00000000", 3, 1, "00000000"),
            (12, 0, "08000000", 4, 0, "00000007"),
        ]

    @Test("An ICMP error of the host translates the packet in it", arguments: toIPv6)
    func errorToIPv6(
        type: UInt8, code: UInt8, second: String, outType: UInt8, outCode: UInt8, outSecond: String
    ) {
        var bench = Bench()
        let input = V4().icmp(type, code, octets(second), Self.received(40))
        let expected = outbound().icmp(outType, outCode, octets(outSecond), Self.came(40))
        #expect(bench.hex(input.octets) == hex(expected.octets))
    }

    @Test("The packet in an error may be cut anywhere after its IP header", arguments: 0...48)
    func truncated(count: Int) {
        var bench = Bench()
        let toIPv4 = V6().icmp(1, 0, [0, 0, 0, 0], Array(Self.quoted(40).prefix(40 + count)))
        #expect(
            bench.hex(toIPv4.octets)
                == hex(inbound().icmp(3, 1, [0, 0, 0, 0], Array(Self.sent(40).prefix(20 + count))).octets))
        let toIPv6 = V4().icmp(3, 1, [0, 0, 0, 0], Array(Self.received(40).prefix(20 + count)))
        #expect(
            bench.hex(toIPv6.octets)
                == hex(outbound().icmp(1, 0, [0, 0, 0, 0], Array(Self.came(40).prefix(40 + count))).octets))
    }

    @Test(
        "The checksum in a quoted packet is adapted for every transport and PREF64 length",
        arguments: OutboundTests.transports, AddressTests.embeddings)
    func quotedTransport(
        _ transport: (name: String, number: UInt8, make: @Sendable (any IPPacket) -> [UInt8]),
        _ prefix: (prefix: String, address: String)
    ) {
        var mapping = Mapping.standard
        mapping.pref64 = .text(prefix.prefix)
        var bench = Bench(.init(mappings: [mapping], ipv6MTU: 1500))
        let peer = IPv4Address(192, 0, 2, 33)
        var quoted6 = outbound { ($0.destination, $0.next) = (.text(prefix.address), transport.number) }
        quoted6.payload = transport.make(quoted6)
        var quoted4 = V4(destination: peer, identification: 0, ttl: 63, number: transport.number)
        quoted4.payload = transport.make(quoted4)
        let input = V6(source: .text(prefix.address)).icmp(1, 0, [0, 0, 0, 0], quoted6.octets)
        let expected = inbound { $0.source = peer }.icmp(3, 1, [0, 0, 0, 0], quoted4.octets)
        #expect(bench.hex(input.octets) == hex(expected.octets))

        var received4 = V4(source: peer, destination: mapping.ipv4, number: transport.number)
        received4.payload = transport.make(received4)
        var received6 = V6(source: .text(prefix.address), next: transport.number)
        received6.payload = transport.make(received6)
        let back = V4(destination: peer).icmp(3, 1, [0, 0, 0, 0], received4.octets)
        let expectedBack = outbound { $0.destination = .text(prefix.address) }.icmp(
            1, 0, [0, 0, 0, 0], received6.octets)
        #expect(bench.hex(back.octets) == hex(expectedBack.octets))
    }

    @Test("A quoted echo changes its type and checksum")
    func quotedEcho() {
        var bench = Bench()
        let echo6 = outbound().icmp(128, 0, [0, 1, 0, 2], pattern(9)).octets
        let echo4 = V4(identification: 0, ttl: 63).icmp(8, 0, [0, 1, 0, 2], pattern(9)).octets
        #expect(
            bench.hex(V6().icmp(3, 0, [0, 0, 0, 0], echo6).octets)
                == hex(inbound().icmp(11, 0, [0, 0, 0, 0], echo4).octets))
        let reply4 = inbound().icmp(8, 0, [0, 1, 0, 2], pattern(9)).octets
        let reply6 = V6(hopLimit: 63).icmp(128, 0, [0, 1, 0, 2], pattern(9)).octets
        #expect(
            bench.hex(V4().icmp(3, 2, [0, 0, 0, 0], reply4).octets)
                == hex(outbound().icmp(4, 1, [0, 0, 0, 6], reply6).octets))
    }

    @Test("A quoted UDP packet without checksum keeps it so")
    func quotedZeroChecksum() {
        var mapping = Mapping.standard
        mapping.ipv6.low ^= 0xff
        var bench = Bench(.init(mappings: [mapping], ipv6MTU: 1500))
        var received4 = inbound().with { $0.udp(pattern(8)) }
        put(0, 6, &received4.payload)
        var received6 = V6(destination: mapping.ipv6, hopLimit: 63).with { $0.udp(pattern(8)) }
        put(0, 6, &received6.payload)
        #expect(
            bench.hex(V4().icmp(3, 3, [0, 0, 0, 0], received4.octets).octets)
                == hex(outbound { $0.source = mapping.ipv6 }.icmp(1, 4, [0, 0, 0, 0], received6.octets).octets))
    }

    @Test("A quoted fragment stays one, and its MTU allows for the Fragment header", arguments: [0, 1232])
    func quotedFragment(offset: Int) {
        var bench = Bench()
        let data = Array(outbound().udp(pattern(2000))[offset..<offset + 64])
        var quoted6 = outbound { $0.next = 44 }
        quoted6.extensions = V6.fragment(17, offset: offset, more: true, identification: 0xabcd_beef)
        quoted6.payload = data
        var quoted4 = V4(identification: 0xbeef, more: true, offset: offset, ttl: 63)
        quoted4.payload = data
        #expect(
            bench.hex(V6().icmp(2, 0, [0, 0, 5, 0], quoted6.octets).octets)
                == hex(inbound().icmp(3, 4, [0, 0, 0x04, 0xe4], quoted4.octets).octets))
        var back4 = inbound { ($0.identification, $0.more, $0.offset) = (0xbeef, true, offset) }
        back4.payload = data
        var back6 = V6(hopLimit: 63, next: 44)
        back6.extensions = V6.fragment(17, offset: offset, more: true, identification: 0xbeef)
        back6.payload = data
        #expect(
            bench.hex(V4().icmp(11, 1, [0, 0, 0, 0], back4.octets).octets)
                == hex(outbound().icmp(3, 1, [0, 0, 0, 0], back6.octets).octets))
    }

    @Test("Extension headers and IPv4 options in a quoted packet are dropped")
    func quotedHeaders() {
        var bench = Bench()
        var quoted6 = outbound { $0.next = 60 }
        quoted6.extensions = octets("1100010400000000")
        quoted6.payload = quoted6.udp(pattern(5))
        let quoted4 = V4(identification: 0, ttl: 63).with { $0.udp(pattern(5)) }
        #expect(
            bench.hex(V6().icmp(1, 4, [0, 0, 0, 0], quoted6.octets).octets)
                == hex(inbound().icmp(3, 3, [0, 0, 0, 0], quoted4.octets).octets))
        let received = V4(
            source: IPv4Address(198, 51, 100, 1), destination: IPv4Address(192, 0, 0, 1), ttl: 63,
            options: [1, 1, 1, 0]
        ).with { $0.udp(pattern(5)) }
        #expect(
            bench.hex(V4().icmp(3, 3, [0, 0, 0, 0], received.octets).octets)
                == hex(outbound().icmp(1, 4, [0, 0, 0, 0], Self.came(5)).octets))
    }

    @Test("An error from a link-local router is not lost, and says who")
    func linkLocalRouter() {
        var bench = Bench()
        let input = V6(source: .text("fe80::1")).icmp(2, 0, [0, 0, 5, 0], Self.quoted(400))
        let output = bench.packets(input.octets).first ?? []
        #expect(Array(output[12..<16]) == [192, 0, 0, 8])
        #expect(Array(output.suffix(16)) == IPv6Address.text("fe80::1").bytes)
        #expect(fault(Virtio().bytes + output) == nil)
    }

    @Test("An impossible IPv4 source is shown in an error, but never our own")
    func impossibleSource() {
        var bench = Bench()
        let input = V6(source: .text("64:ff9b::127.0.0.1")).icmp(1, 0, [0, 0, 0, 0], Self.quoted(5))
        #expect(bench.packets(input.octets).first.map { Array($0[12..<16]) } == [127, 0, 0, 1])
        let own = V6(source: .text("64:ff9b::192.0.0.1")).icmp(1, 0, [0, 0, 0, 0], Self.quoted(5))
        #expect(bench.packets(own.octets) == [])
        #expect(bench.drops == ["source-own": 1])
    }

    @Test("A drained mapping's errors reach its own IPv4 address")
    func drainedMapping() {
        let old = Mapping(
            ipv4: IPv4Address(192, 0, 0, 2), ipv6: Mapping.standard.ipv6, pref64: .text("2001:db8:64::/96"))
        var bench = Bench(.init(mappings: [.standard, old], ipv6MTU: 1500))
        let quoted = Self.quoted(9) { $0.destination = .text("2001:db8:64::c633:6401") }
        let output = bench.packets(V6(source: .text("2001:db8:ffff::1")).icmp(3, 0, [0, 0, 0, 0], quoted).octets).first
        #expect(output.map { Array($0[16..<20]) } == old.ipv4.bytes)
    }

    @Test("Errors are held to 1280 octets in IPv6", arguments: [1200, 1212, 1213, 1400])
    func limit(size: Int) {
        var bench = Bench()
        let input = V4().icmp(3, 1, [0, 0, 0, 0], Self.received(size))
        let output = bench.frames(input.octets).first ?? []
        #expect(output.count - 10 == min(1280, 48 + 48 + size))
        #expect(fault(output) == nil)
    }
}
