import ClatBase
import Testing

@testable import ClatTranslator

@Suite("ICMP errors of the translator's own")
struct AnswerTests {
    /// What the host gets about a packet of its own.
    static func toHost(_ type: UInt8, _ code: UInt8, _ mtu: Int = 0, about packet: [UInt8]) -> [UInt8] {
        V4(
            source: IPv4Address(192, 0, 0, 8), destination: IPv4Address(192, 0, 0, 1), tos: 0xc0, identification: 0
        ).icmp(type, code, [0, 0] + word(mtu), Array(packet.prefix(548))).octets
    }

    /// What a node of the network gets.
    static func toNetwork(
        _ type: UInt8, _ code: UInt8, _ second: Int = 0, about packet: [UInt8], to destination: IPv6Address
    ) -> [UInt8] {
        V6(source: Mapping.standard.ipv6, destination: destination)
            .icmp(type, code, long(second), Array(packet.prefix(1232))).octets
    }

    @Test("A TTL that runs out is answered with Time Exceeded from 192.0.0.8", arguments: [0, 1])
    func timeExceeded(ttl: UInt8) {
        var bench = Bench()
        let input = V4(ttl: ttl).with { $0.udp(pattern(32)) }.octets
        #expect(bench.hex(input) == hex(Self.toHost(11, 0, about: input)))
        #expect(bench.drops == ["ttl-expired": 1])
        #expect(bench.counters.snapshot().errorsToHost == 1)
    }

    @Test("Without decrement only a TTL of 0 runs out")
    func noDecrement() {
        var configuration = TranslatorConfiguration.standard
        configuration.hopLimitDecrement = 0
        var bench = Bench(configuration)
        #expect(bench.packets(V4(ttl: 1).with { $0.udp([]) }.octets).first?.first == 0x60)
        #expect(bench.packets(V4(ttl: 0).with { $0.udp([]) }.octets).first?.first == 0x45)
    }

    @Test("Before the kernel's forwarding takes one, errors have one more")
    func forwarded() {
        var configuration = TranslatorConfiguration.standard
        (configuration.kernelHops, configuration.strictHopLimit) = (1, true)
        var bench = Bench(configuration)
        let prohibited = V4(destination: IPv4Address(192, 0, 0, 5)).with { $0.udp([]) }.octets
        #expect(bench.packets(prohibited).first?[8] == 65)
        let expired = V6(hopLimit: 0).with { $0.udp([]) }.octets
        #expect(bench.packets(expired).first?[7] == 65)
    }

    @Test("In strict mode a hop limit that runs out is answered with Time Exceeded", arguments: [0, 1])
    func strictHopLimit(hopLimit: UInt8) {
        var configuration = TranslatorConfiguration.standard
        configuration.strictHopLimit = true
        var bench = Bench(configuration)
        let input = V6(hopLimit: hopLimit).with { $0.udp(pattern(32)) }
        #expect(bench.hex(input.octets) == hex(Self.toNetwork(3, 0, about: input.octets, to: input.source)))
        #expect(bench.drops == ["hop-limit-expired": 1])
    }

    @Test("DF set and too large: Fragmentation Needed with the MTU that would do", arguments: [1481, 65535])
    func fragmentationNeeded(size: Int) {
        var bench = Bench()
        let input = V4(dontFragment: true, number: 200, payload: pattern(size - 20)).octets
        #expect(bench.hex(input) == hex(Self.toHost(3, 4, 1480, about: input)))
        #expect(bench.drops == ["ipv4-too-big": 1])
        let fitting = V4(dontFragment: true, number: 200, payload: pattern(1460))
        let expected = outbound { ($0.next, $0.payload) = (200, fitting.payload) }
        #expect(bench.hex(fitting.octets) == hex(expected.octets))
    }

    @Test("A first fragment with DF that is too large is answered with an MTU 8 octets smaller")
    func fragmentationNeededOfFragment() {
        var bench = Bench()
        var input = V4(dontFragment: true, more: true, number: 200)
        input.payload = pattern(1456)
        #expect(bench.hex(input.octets) == hex(Self.toHost(3, 4, 1472, about: input.octets)))
        input.payload = pattern(1448)
        #expect(bench.packets(input.octets).first?.count == 1496)
    }

    @Test("A source route is answered with Source Route Failed")
    func sourceRoute() {
        var bench = Bench()
        let input = V4(options: octets("830704c633640700")).with { $0.udp(pattern(2)) }.octets
        #expect(bench.hex(input) == hex(Self.toHost(3, 5, about: input)))
    }

    @Test("A segment left in a Routing header is answered with its place")
    func routingHeader() {
        var bench = Bench()
        var input = V6(next: 60)
        input.extensions = octets("2b00010400000000 1100 0401 00000000")
        input.payload = input.udp(pattern(2))
        #expect(bench.hex(input.octets) == hex(Self.toNetwork(4, 0, 51, about: input.octets, to: input.source)))
        #expect(bench.drops == ["routing-header": 1])
    }

    @Test("Too large for the host: Packet Too Big, not below 1280", arguments: [(1400, 1420), (1000, 1280)])
    func packetTooBig(ipv4MTU: Int, mtu: Int) {
        var configuration = TranslatorConfiguration.standard
        configuration.ipv4MTU = ipv4MTU
        var bench = Bench(configuration)
        let input = V6().with { $0.udp(pattern(1400)) }
        #expect(bench.hex(input.octets) == hex(Self.toNetwork(2, 0, mtu, about: input.octets, to: input.source)))
        #expect(bench.drops == ["ipv6-too-big": 1])
    }

    static let natives: [(name: String, packet: V6)] = [
        ("TCP", V6(source: ExtensionTests.native, next: 6).with { $0.tcp([]) }),
        ("UDP", V6(source: ExtensionTests.native).with { $0.udp(pattern(1400)) }),
        (
            "a first fragment",
            {
                var packet = V6(source: ExtensionTests.native, next: 44)
                packet.extensions = V6.fragment(17, more: true, identification: 1)
                packet.payload = pattern(8)
                return packet
            }()
        ),
    ]

    @Test("Native packets from outside the PREF64 are answered with 1/1, unless switched off", arguments: natives)
    func outsiders(name: String, packet: V6) {
        var bench = Bench()
        #expect(bench.hex(packet.octets) == hex(Self.toNetwork(1, 1, about: packet.octets, to: packet.source)))
        #expect(bench.drops == ["source-outside": 1])
        var configuration = TranslatorConfiguration.standard
        configuration.answerUntranslatable = false
        bench.translator.update(configuration)
        #expect(bench.packets(packet.octets) == [])
    }

    static let unreachable = [
        IPv4Address(192, 0, 0, 0), IPv4Address(192, 0, 0, 7), IPv4Address(192, 0, 0, 8), IPv4Address(169, 254, 1, 1),
        IPv4Address(240, 0, 0, 1), IPv4Address(255, 255, 255, 254),
    ]

    @Test("Destinations that are never on the other side are answered with 3/13", arguments: unreachable)
    func prohibited(destination: IPv4Address) {
        var bench = Bench()
        let input = V4(destination: destination).with { $0.udp(pattern(2)) }.octets
        #expect(bench.hex(input) == hex(Self.toHost(3, 13, about: input)))
    }

    /// Behind a Routing header that has a segment left.
    private static func routed(_ next: UInt8, _ others: [UInt8] = []) -> V6 {
        V6(
            source: ExtensionTests.native, next: 43, extensions: [next] + octets("000401 00000000") + others,
            payload: pattern(8))
    }

    static let noAnswers: [(name: String, packet: [UInt8])] = [
        ("an ICMP error", V4(ttl: 1).icmp(3, 1, [0, 0, 0, 0], ErrorTests.received(9)).octets),
        ("a redirect", V4(ttl: 1).icmp(5, 1, [0, 0, 0, 0], ErrorTests.received(9)).octets),
        ("an empty ICMP packet", V4(ttl: 1, number: 1).octets),
        ("a later fragment", V4(offset: 8, ttl: 1, payload: pattern(9)).octets),
        (
            "a later fragment with DF that is too large",
            V4(dontFragment: true, offset: 8, number: 200, payload: pattern(1453)).octets
        ),
        ("a broadcast", V4(destination: IPv4Address(255, 255, 255, 255), ttl: 1).octets),
        ("a multicast", V4(destination: IPv4Address(224, 0, 0, 251), ttl: 1).octets),
        ("a broken header", Array(V4(ttl: 1).octets.prefix(19)) + [0]),
        ("an ICMPv6 error that is routed on", routed(58).icmp(1, 0, [0, 0, 0, 0], pattern(60)).octets),
        ("a later fragment that is routed on", routed(44, V6.fragment(17, offset: 8, identification: 1)).octets),
        ("what is routed on and broken behind", routed(60, octets("1101")).octets),
        (
            "a native later fragment",
            {
                var packet = V6(source: ExtensionTests.native, next: 44)
                packet.extensions = V6.fragment(17, offset: 8, identification: 1)
                packet.payload = pattern(8)
                return packet.octets
            }()
        ),
        ("a native echo", V6(source: ExtensionTests.native).icmp(128, 0).octets),
        ("a link-local sender", V6(source: .text("fe80::1")).with { $0.udp([]) }.octets),
        ("a multicast source", V6(source: .text("ff02::1")).with { $0.udp([]) }.octets),
        ("an unspecified source", V6(source: .unspecified).with { $0.udp([]) }.octets),
    ]

    @Test("No error answers what must not be answered", arguments: noAnswers)
    func silence(name: String, packet: [UInt8]) {
        var bench = Bench()
        #expect(bench.packets(packet) == [])
        #expect(bench.drops.values.reduce(0, +) == 1)
    }

    @Test("An echo is answered, as every other query")
    func queryAnswered() {
        var bench = Bench()
        #expect(bench.packets(V4(ttl: 1).icmp(8, 0).octets).count == 1)
    }

    @Test("Errors towards each side are limited per second, after a burst of one second's worth")
    func rateLimit() {
        var configuration = TranslatorConfiguration.standard
        configuration.errorsPerSecond = 10
        var bench = Bench(configuration)
        bench.now = 5_000_000_000
        let input = V4(ttl: 1).with { $0.udp([]) }.octets
        let native = V6(source: ExtensionTests.native).with { $0.udp([]) }.octets
        func burst(_ packet: [UInt8]) -> Int { (0..<50).reduce(0) { sum, _ in sum + bench.packets(packet).count } }
        #expect(burst(input) == 10)
        #expect(burst(native) == 10)
        // These hold up none about sizes.
        #expect(burst(V4(dontFragment: true, number: 200, payload: pattern(1461)).octets) == 10)
        #expect(burst(V6().with { $0.udp(pattern(1453)) }.octets) == 10)
        bench.now += 300_000_000
        #expect(burst(input) == 3)
        bench.now += 60_000_000_000
        #expect(burst(input) == 10)
        #expect(bench.counters.snapshot().errorsSuppressed == 40 * 4 + 47 + 40)
        configuration.errorsPerSecond = 0
        bench.translator.update(configuration)
        bench.now += 60_000_000_000
        #expect(burst(input) == 0)
    }

    @Test("An error quotes a packet with its checksum finished")
    func finished() {
        var bench = Bench()
        let input = V4(ttl: 1).with { $0.udp(pattern(9), partial: true) }.octets
        let finished = V4(ttl: 1).with { $0.udp(pattern(9)) }.octets
        #expect(
            bench.frames(input, Virtio(partialAt: 20, offset: 6)) == [
                Virtio().bytes + Self.toHost(11, 0, about: finished)
            ])
        let native = V6(source: ExtensionTests.native)
        #expect(
            bench.frames(native.with { $0.udp([1], partial: true) }.octets, Virtio(partialAt: 40, offset: 6))
                == [Virtio().bytes + Self.toNetwork(1, 1, about: native.with { $0.udp([1]) }.octets, to: native.source)]
        )
    }
}
