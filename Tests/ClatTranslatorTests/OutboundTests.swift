import ClatBase
import Testing

@testable import ClatTranslator

/// What the host's packet to 198.51.100.1 becomes, checksum and all: a starting point for expectations.
func outbound(_ change: (inout V6) -> Void = { _ in }) -> V6 {
    var packet = V6(source: Mapping.standard.ipv6, destination: .text("64:ff9b::c633:6401"), hopLimit: 63)
    change(&packet)
    return packet
}

@Suite("IPv4 to IPv6")
struct OutboundTests {
    /// Protocols whose payload must arrive as it is, but for the checksum over the addresses.
    static let transports: [(name: String, number: UInt8, make: @Sendable (any IPPacket) -> [UInt8])] = [
        ("TCP", 6, { ($0 as? V4)?.tcp(pattern(33)) ?? ($0 as? V6)?.tcp(pattern(33)) ?? [] }),
        ("UDP", 17, { ($0 as? V4)?.udp(pattern(33)) ?? ($0 as? V6)?.udp(pattern(33)) ?? [] }),
        ("DCCP", 33, { $0.checksummed(pattern(40), 33, at: 6) }),
        ("UDP-Lite", 136, { $0.checksummed(word(1) + word(2) + word(0) + [0, 0] + pattern(30), 136, at: 6) }),
        ("SCTP", 132, { _ in pattern(48) }), ("GRE", 47, { _ in pattern(60) }), ("ESP", 50, { _ in pattern(60) }),
        ("AH", 51, { _ in pattern(60) }), ("IPIP", 4, { _ in V4().octets }), ("6in4", 41, { _ in V6().octets }),
        ("no next header", 59, { _ in pattern(5) }), ("unknown", 200, { _ in pattern(1) }),
        ("unknown and empty", 201, { _ in [] }),
    ]

    @Test("Every transport passes under every PREF64 length", arguments: transports, AddressTests.embeddings)
    func transport(
        _ transport: (name: String, number: UInt8, make: @Sendable (any IPPacket) -> [UInt8]),
        _ prefix: (prefix: String, address: String)
    ) {
        var mapping = Mapping.standard
        mapping.pref64 = .text(prefix.prefix)
        var bench = Bench(.init(mappings: [mapping], ipv6MTU: 1500))
        var input = V4(destination: IPv4Address(192, 0, 2, 33), number: transport.number)
        input.payload = transport.make(input)
        var expected = outbound {
            $0.destination = .text(prefix.address)
            $0.next = transport.number
        }
        expected.payload = transport.make(expected)
        #expect(bench.hex(input.octets) == hex(expected.octets))
        #expect(bench.drops == [:])
    }

    @Test("DCCP and UDP-Lite pass too where they end before their checksum", arguments: [33, 136] as [UInt8], 0..<8)
    func truncated(number: UInt8, size: Int) {
        var bench = Bench()
        #expect(
            bench.hex(V4(number: number, payload: pattern(size)).octets)
                == hex(outbound { ($0.next, $0.payload) = (number, pattern(size)) }.octets))
        #expect(
            bench.hex(V6(next: number, payload: pattern(size)).octets)
                == hex(inbound { ($0.number, $0.payload) = (number, pattern(size)) }.octets))
    }

    @Test("A first fragment of DCCP with no more than its checksum has that adapted")
    func firstOfDCCP() {
        var mapping = Mapping.standard
        mapping.ipv6 = .text("2001:db8:1:2:a1b2:c3d4:e5f6:718")
        var bench = Bench(.init(mappings: [mapping], ipv6MTU: 1500))
        let input = V4(number: 33)
        let output = outbound { ($0.source, $0.next) = (mapping.ipv6, 33) }
        #expect(
            bench.hex(input.piece(input.checksummed(pattern(40), 33, at: 6), 0..<8))
                == hex(output.piece(output.checksummed(pattern(40), 33, at: 6), 0..<8, identification: 0x1234)))
    }

    @Test(
        "Traffic class is TOS, ECN too, or zero if switched off; the flow label is zero", arguments: [0, 0xb8, 0xff, 3])
    func trafficClass(tos: UInt8) {
        let input = V4(tos: tos).with { $0.udp([]) }
        var bench = Bench()
        #expect(bench.hex(input.octets) == hex(outbound { $0.trafficClass = tos }.with { $0.udp([]) }.octets))
        var configuration = TranslatorConfiguration.standard
        configuration.copyTrafficClass = false
        bench.translator.update(configuration)
        #expect(bench.hex(input.octets) == hex(outbound().with { $0.udp([]) }.octets))
    }

    @Test("TTL falls by one, or by none if switched off", arguments: [2, 64, 255])
    func hopLimit(ttl: UInt8) {
        let input = V4(ttl: ttl).with { $0.udp([]) }
        var bench = Bench()
        #expect(bench.hex(input.octets) == hex(outbound { $0.hopLimit = ttl - 1 }.with { $0.udp([]) }.octets))
        var configuration = TranslatorConfiguration.standard
        configuration.hopLimitDecrement = 0
        bench.translator.update(configuration)
        #expect(bench.hex(input.octets) == hex(outbound { $0.hopLimit = ttl }.with { $0.udp([]) }.octets))
    }

    @Test(
        "Between two hops of the kernel's forwarding, the three together take one",
        arguments: [(1, 1, 2), (63, 1, 64), (254, 1, 255), (1, 0, 3), (254, 0, 255)] as [(UInt8, UInt8, UInt8)])
    func forwarded(ttl: UInt8, decrement: UInt8, hopLimit: UInt8) {
        var configuration = TranslatorConfiguration.standard
        (configuration.kernelHops, configuration.hopLimitDecrement) = (1, decrement)
        var bench = Bench(configuration)
        let input = V4(ttl: ttl).with { $0.udp([]) }
        #expect(bench.hex(input.octets) == hex(outbound { $0.hopLimit = hopLimit }.with { $0.udp([]) }.octets))
    }

    static let harmlessOptions = [
        "01010100", "07070400000000 00", "94040000", "830708c633640700", "44 04 05 00", "83ff0400",
    ]

    @Test("IPv4 options are dropped and the packet passes", arguments: harmlessOptions)
    func options(text: String) {
        var bench = Bench()
        let input = V4(number: 6, options: octets(text)).with { $0.tcp(pattern(9)) }
        #expect(bench.hex(input.octets) == hex(outbound { $0.next = 6 }.with { $0.tcp(pattern(9)) }.octets))
    }

    @Test("Link padding is cut off")
    func padding() {
        var bench = Bench()
        let input = V4().with { $0.udp([1, 2, 3]) }.octets + [UInt8](repeating: 0xff, count: 15)
        #expect(bench.hex(input) == hex(outbound().with { $0.udp([1, 2, 3]) }.octets))
    }

    @Test("An echo passes both ways and with any code", arguments: [(8, 128), (0, 129)], [0, 7])
    func echo(types: (UInt8, UInt8), code: UInt8) {
        var bench = Bench()
        let input = V4().icmp(types.0, code, [0, 0x77, 0, 1], pattern(57))
        #expect(bench.hex(input.octets) == hex(outbound().icmp(types.1, code, [0, 0x77, 0, 1], pattern(57)).octets))
    }

    static let silentTypes: [UInt8] = [1, 2, 4, 5, 6, 7, 9, 10, 13, 14, 15, 16, 17, 18, 30, 40, 41, 42, 43, 253, 255]

    @Test("ICMP messages without a counterpart are dropped silently", arguments: silentTypes)
    func silent(type: UInt8) {
        var bench = Bench()
        #expect(bench.packets(V4().icmp(type, 0, [0, 0, 0, 0], pattern(28)).octets) == [])
        #expect(bench.drops == ["icmp-type": 1])
    }

    @Test("A UDP checksum of zero is computed, whatever follows the datagram in the packet", arguments: [0, 1, 32, 33])
    func zeroChecksum(size: Int) {
        var bench = Bench()
        var input = V4().with { $0.udp(pattern(size)) }
        put(0, 6, &input.payload)
        input.payload += [9, 9, 9]
        var expected = outbound().with { $0.udp(pattern(size)) }
        expected.payload += [9, 9, 9]
        #expect(bench.hex(input.octets) == hex(expected.octets))
    }

    @Test("A UDP checksum that comes out as zero is sent as ffff, computed and adapted")
    func computedZero() {
        var mapping = Mapping.standard
        mapping.ipv6.low ^= 0xff
        for absent in [true, false] {
            var bench = Bench(.init(mappings: [mapping], ipv6MTU: 1500))
            var expected = outbound { $0.source = mapping.ipv6 }.with { $0.udp([0, 0]) }
            // The last word takes up what the checksum would have been: the sum is then all ones.
            let rest = word(expected.payload, 6)
            expected.payload = word(40000) + word(53) + word(10) + [0xff, 0xff] + word(rest)
            var input = V4().with { $0.udp(word(rest)) }
            if absent { put(0, 6, &input.payload) }
            #expect(bench.hex(input.octets) == hex(expected.octets))
        }
    }

    @Test("With a checksum-neutral address no checksum changes, right or wrong", arguments: [0x0001, 0xffff, 0x1234])
    func neutral(checksum: UInt16) {
        var bench = Bench()
        var input = V4().with { $0.udp(pattern(20)) }
        put(checksum, 6, &input.payload)
        var expected = outbound().with { $0.udp(pattern(20)) }
        put(checksum, 6, &expected.payload)
        #expect(bench.hex(input.octets) == hex(expected.octets))
    }

    @Test(
        "RFC 1918 destinations pass, but not under 64:ff9b::/96 in strict mode",
        arguments: [
            IPv4Address(10, 1, 2, 3), IPv4Address(172, 16, 0, 1), IPv4Address(172, 31, 255, 255),
            IPv4Address(192, 168, 1, 1),
        ])
    func privateDestinations(destination: IPv4Address) {
        let input = V4(destination: destination).with { $0.udp([]) }
        var bench = Bench()
        #expect(bench.packets(input.octets).count == 1)
        var configuration = TranslatorConfiguration.standard
        configuration.strictWellKnownPrefix = true
        bench.translator.update(configuration)
        #expect(bench.packets(input.octets).first?.first == 0x45)
        #expect(bench.drops == ["private-under-well-known": 1])
        configuration.mappings[0].pref64 = .text("2001:db8::/96")
        bench.translator.update(configuration)
        #expect(bench.packets(input.octets).first?.first == 0x60)
    }

    @Test(
        "Public destinations beside RFC 1918 pass in strict mode",
        arguments: [
            IPv4Address(172, 15, 255, 255), IPv4Address(172, 32, 0, 0), IPv4Address(11, 0, 0, 0),
            IPv4Address(192, 169, 0, 0),
            IPv4Address(192, 0, 0, 9), IPv4Address(192, 0, 0, 170), IPv4Address(191, 255, 255, 255),
            IPv4Address(169, 253, 0, 1),
            IPv4Address(223, 255, 255, 255), IPv4Address(126, 0, 0, 1), IPv4Address(128, 0, 0, 1),
        ])
    func publicDestinations(destination: IPv4Address) {
        var configuration = TranslatorConfiguration.standard
        configuration.strictWellKnownPrefix = true
        var bench = Bench(configuration)
        #expect(bench.packets(V4(destination: destination).with { $0.udp([]) }.octets).first?.first == 0x60)
    }

    @Test("The source address selects the mapping, and those of drained mappings still work")
    func mappings() {
        let old = Mapping(
            ipv4: IPv4Address(192, 0, 0, 2), ipv6: .text("2001:db8:9::1"), pref64: .text("2001:db8:64::/96"))
        var bench = Bench(.init(mappings: [.standard, old], ipv6MTU: 1500))
        let input = V4(source: old.ipv4, number: 6).with { $0.tcp([]) }
        let expected = outbound {
            $0.source = old.ipv6
            $0.destination = .text("2001:db8:64::c633:6401")
            $0.next = 6
        }.with { $0.tcp([]) }
        #expect(bench.hex(input.octets) == hex(expected.octets))
        #expect(bench.packets(V4(source: IPv4Address(192, 0, 0, 3)).with { $0.tcp([]) }.octets) == [])
        #expect(bench.drops == ["source-not-ours": 1])
    }
}
