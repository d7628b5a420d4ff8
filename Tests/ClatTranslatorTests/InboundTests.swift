import ClatBase
import Testing

@testable import ClatTranslator

/// What a packet from 198.51.100.1 becomes for the host.
func inbound(_ change: (inout V4) -> Void = { _ in }) -> V4 {
    var packet = V4(
        source: IPv4Address(198, 51, 100, 1), destination: IPv4Address(192, 0, 0, 1), identification: 0, ttl: 63)
    change(&packet)
    return packet
}

@Suite("IPv6 to IPv4")
struct InboundTests {
    @Test(
        "Every transport passes under every PREF64 length", arguments: OutboundTests.transports, AddressTests.embeddings
    )
    func transport(
        _ transport: (name: String, number: UInt8, make: @Sendable (any IPPacket) -> [UInt8]),
        _ prefix: (prefix: String, address: String)
    ) {
        var mapping = Mapping.standard
        mapping.pref64 = .text(prefix.prefix)
        var bench = Bench(.init(mappings: [mapping], ipv6MTU: 1500))
        var input = V6(source: .text(prefix.address), next: transport.number)
        input.payload = transport.make(input)
        var expected = inbound {
            $0.source = IPv4Address(192, 0, 2, 33)
            $0.number = transport.number
        }
        expected.payload = transport.make(expected)
        #expect(bench.hex(input.octets) == hex(expected.octets))
        #expect(bench.drops == [:])

        // What follows the address in shorter prefixes is ignored, though checksums have summed it.
        guard mapping.pref64.length < 96 else { return }
        input.source.low |= 0x1234
        input.payload = transport.make(input)
        expected.identification = 1
        let suffixed = bench.packets(input.octets).first ?? []
        #expect(hex(Array(suffixed.dropFirst(20))) == hex(expected.payload))
    }

    @Test("TOS is traffic class, or zero if switched off; the flow label is lost", arguments: [0, 0xb8, 0xff, 3])
    func trafficClass(value: UInt8) {
        let input = V6(trafficClass: value, flowLabel: 0xabcde).with { $0.udp([]) }
        var bench = Bench()
        #expect(bench.hex(input.octets) == hex(inbound { $0.tos = value }.with { $0.udp([]) }.octets))
        var configuration = TranslatorConfiguration.standard
        configuration.copyTrafficClass = false
        bench.translator.update(configuration)
        #expect(bench.hex(input.octets) == hex(inbound { $0.identification = 1 }.with { $0.udp([]) }.octets))
    }

    @Test(
        "The hop limit falls by one but not to zero: the packet is delivered",
        arguments: [(0, 1), (1, 1), (2, 1), (3, 2), (64, 63), (255, 254)])
    func hopLimit(hopLimit: UInt8, ttl: UInt8) {
        var bench = Bench()
        let input = V6(hopLimit: hopLimit).with { $0.udp([]) }
        #expect(bench.hex(input.octets) == hex(inbound { $0.ttl = ttl }.with { $0.udp([]) }.octets))
    }

    @Test(
        "Between two hops of the kernel's forwarding, the three together take one",
        arguments: [(0, 2), (1, 2), (2, 3), (63, 64), (254, 255)] as [(UInt8, UInt8)])
    func forwarded(hopLimit: UInt8, ttl: UInt8) {
        var configuration = TranslatorConfiguration.standard
        configuration.kernelHops = 1
        var bench = Bench(configuration)
        let input = V6(hopLimit: hopLimit).with { $0.udp([]) }
        #expect(bench.hex(input.octets) == hex(inbound { $0.ttl = ttl }.with { $0.udp([]) }.octets))
    }

    @Test("DF is clear up to 1260 octets and set above", arguments: [(1260, false), (1261, true), (1480, true)])
    func dontFragment(size: Int, expected: Bool) {
        var bench = Bench()
        let input = V6().with { $0.udp(pattern(size - 28)) }
        let output = inbound { $0.dontFragment = expected }.with { $0.udp(pattern(size - 28)) }
        #expect(bench.hex(input.octets) == hex(output.octets))
    }

    @Test("Packets with DF clear have identifications of their own")
    func identification() {
        var bench = Bench()
        for number in 0..<3 {
            #expect(
                bench.hex(V6().with { $0.udp([]) }.octets)
                    == hex(inbound { $0.identification = number }.with { $0.udp([]) }.octets))
        }
    }

    static let extensions: [(name: String, next: UInt8, octets: String)] = [
        ("Hop-by-Hop", 0, "1100010400000000"), ("Destination Options", 60, "1101010c 000000000000000000000000"),
        ("Routing, no segments left", 43, "1100 0400 00000000"),
        ("all three", 0, "2b00010400000000 3c00 0400 00000000 1100010400000000"),
        ("Destination Options twice", 60, "3c00010400000000 1100010400000000"),
    ]

    @Test("Extension headers are stepped over", arguments: extensions)
    func extensionHeaders(name: String, next: UInt8, text: String) {
        var bench = Bench()
        var input = V6().with { $0.udp(pattern(12)) }
        (input.next, input.extensions) = (next, octets(text))
        #expect(bench.hex(input.octets) == hex(inbound().with { $0.udp(pattern(12)) }.octets))
    }

    @Test("Link padding is cut off")
    func padding() {
        var bench = Bench()
        let input = V6().with { $0.udp([1, 2, 3]) }.octets + [UInt8](repeating: 0xff, count: 15)
        #expect(bench.hex(input) == hex(inbound().with { $0.udp([1, 2, 3]) }.octets))
    }

    @Test("An echo passes both ways and with any code", arguments: [(8, 128), (0, 129)], [0, 7])
    func echo(types: (UInt8, UInt8), code: UInt8) {
        var bench = Bench()
        let input = V6().icmp(types.1, code, [0, 0x77, 0, 1], pattern(57))
        #expect(bench.hex(input.octets) == hex(inbound().icmp(types.0, code, [0, 0x77, 0, 1], pattern(57)).octets))
    }

    static let kernelTypes: [(types: ClosedRange<UInt8>, reason: String)] = [
        (130...132, "multicast-listener"), (143...143, "multicast-listener"), (133...137, "neighbor-discovery"),
        (138...142, "icmp-type"), (144...255, "icmp-type"),
    ]

    @Test("ICMPv6 messages without a counterpart are dropped silently", arguments: kernelTypes)
    func silent(types: ClosedRange<UInt8>, reason: String) {
        for type in types {
            var bench = Bench()
            #expect(bench.packets(V6().icmp(type, 0, [0, 0, 0, 0], pattern(28)).octets) == [])
            #expect(bench.drops == [reason: 1])
        }
    }

    @Test("A UDP checksum that comes out as zero is sent as ffff")
    func computedZero() {
        var mapping = Mapping.standard
        mapping.ipv6.low ^= 0xff
        var bench = Bench(.init(mappings: [mapping], ipv6MTU: 1500))
        let rest = word(inbound().with { $0.udp([0, 0]) }.payload, 6)
        let input = V6(destination: mapping.ipv6).with { $0.udp(word(rest)) }
        var expected = inbound()
        expected.payload = word(40000) + word(53) + word(10) + [0xff, 0xff] + word(rest)
        #expect(bench.hex(input.octets) == hex(expected.octets))
    }

    @Test("The destination and the PREF64 of the source select the mapping, drained ones too")
    func mappings() {
        let old = Mapping(
            ipv4: IPv4Address(192, 0, 0, 2), ipv6: Mapping.standard.ipv6, pref64: .text("2001:db8:64::/96"))
        let older = Mapping(ipv4: IPv4Address(192, 0, 0, 3), ipv6: .text("2001:db8:9::1"), pref64: .wellKnown)
        var bench = Bench(.init(mappings: [.standard, old, older], ipv6MTU: 1500))
        for (number, mapping) in [Mapping.standard, old, older].enumerated() {
            let input = V6(
                source: mapping.pref64.embed(IPv4Address(198, 51, 100, 1)), destination: mapping.ipv6
            ).with { $0.udp([5]) }
            let expected = inbound {
                $0.destination = mapping.ipv4
                $0.identification = number
            }.with { $0.udp([5]) }
            #expect(bench.hex(input.octets) == hex(expected.octets))
        }
    }

    @Test("What comes from another PREF64 that is told is for the current mapping, by which alone packets go out")
    func inboundPREF64s() {
        let prefixes = ["2001:db8:64::/96", "2001:db8:65::/48", "2001:db8:66::/96", "2001:db8:67::/96"].map {
            PREF64.text($0)
        }
        var configuration = TranslatorConfiguration.standard
        configuration.inboundPREF64s = prefixes
        var bench = Bench(configuration)
        func input(_ prefix: PREF64) -> V6 {
            V6(source: prefix.embed(IPv4Address(198, 51, 100, 1))).with { $0.udp([5]) }
        }
        for (number, prefix) in ([.wellKnown] + prefixes.prefix(3)).enumerated() {
            let expected = inbound { $0.identification = number }.with { $0.udp([5]) }
            #expect(bench.hex(input(prefix).octets) == hex(expected.octets))
        }
        #expect(bench.packets(V4().with { $0.udp([]) }.octets) == [outbound().with { $0.udp([]) }.octets])
        #expect(bench.drops == [:])
        // There is room for so many, and mappings go first.
        #expect(bench.packets(input(prefixes[3]).octets).first?.first == 0x60)
        #expect(bench.drops == ["source-outside": 1])
    }

    @Test("Nodes of our own link are native even where a short PREF64 covers them")
    func ownPrefix() {
        var mapping = Mapping.standard
        mapping.pref64 = .text("2001:db8::/32")
        var bench = Bench(.init(mappings: [mapping], ipv6MTU: 1500))
        let input = V6(source: .text("2001:db8:1:2::5")).with { $0.udp([]) }
        #expect(bench.packets(input.octets).first?.first == 0x60)
        #expect(bench.drops == ["source-outside": 1])
    }

    @Test("RFC 1918 sources pass, but not under 64:ff9b::/96 in strict mode")
    func privateSources() {
        let input = V6(source: .text("64:ff9b::10.1.2.3")).with { $0.udp([]) }
        var bench = Bench()
        #expect(bench.packets(input.octets).count == 1)
        var configuration = TranslatorConfiguration.standard
        configuration.strictWellKnownPrefix = true
        bench.translator.update(configuration)
        #expect(bench.packets(input.octets) == [])
    }
}
