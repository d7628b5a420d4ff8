import ClatBase
import Testing

@testable import ClatTranslator

@Suite("Refusals")
struct RefusalTests {
    /// Packets that are refused, by reason; the table must name every reason there is.
    static let table: [(reason: DropReason, packets: [[UInt8]])] = [
        (.frameTruncated, [[], Array(V4().octets.prefix(19))]),
        (.versionUnknown, [[0x55] + pattern(40), [0x05] + pattern(40), [0xff] + pattern(100)]),
        (
            .ipv4HeaderInvalid,
            [
                [0x44] + V4().octets.dropFirst(), [0x4f] + V4().octets.dropFirst(), V4(totalLength: 19).octets,
                V4(totalLength: 21).octets, V4(totalLength: 65535).octets,
                Array(V4(options: [1, 1, 1, 1]).octets.prefix(20)),
            ]
        ),
        (
            .ipv4ChecksumWrong,
            [
                Array(V4().octets.prefix(10)) + [0, 0] + V4().octets.dropFirst(12),
                Array(V4(options: [1, 1, 1, 1]).octets.prefix(23)) + [2],
            ]
        ),
        (
            .sourceNotOurs,
            [
                V4(source: IPv4Address(192, 0, 0, 2)).octets, V4(source: IPv4Address(0, 0, 0, 0)).octets,
                V4(source: IPv4Address(127, 0, 0, 1)).octets, V4(source: IPv4Address(255, 255, 255, 255)).octets,
                V4(source: IPv4Address(224, 0, 0, 1)).icmp(3, 1, [0, 0, 0, 0], ErrorTests.received(8)).octets,
            ]
        ),
        (.destinationOwn, [V4(destination: IPv4Address(192, 0, 0, 1)).octets]),
        (
            .destinationMulticast,
            [
                V4(destination: IPv4Address(224, 0, 0, 0)).octets,
                V4(destination: IPv4Address(239, 255, 255, 255)).octets,
            ]
        ),
        (
            .destinationReserved,
            [
                V4(destination: IPv4Address(0, 0, 0, 0)).octets, V4(destination: IPv4Address(0, 255, 255, 255)).octets,
                V4(destination: IPv4Address(127, 0, 0, 1)).octets, V4(destination: IPv4Address(169, 254, 0, 0)).octets,
                V4(destination: IPv4Address(240, 0, 0, 0)).octets,
                V4(destination: IPv4Address(255, 255, 255, 255)).octets,
            ]
        ),
        (
            .destinationContinuity,
            [
                V4(destination: IPv4Address(192, 0, 0, 0)).octets, V4(destination: IPv4Address(192, 0, 0, 7)).octets,
                V4(destination: IPv4Address(192, 0, 0, 8)).octets,
            ]
        ),
        (
            .sourceRoute,
            [V4(options: octets("830704c633640700")).octets, V4(options: octets("890704c633640700")).octets]
        ),
        (.ttlExpired, [V4(ttl: 0).octets, V4(ttl: 1).octets]),
        (.ipv4TooBig, [V4(dontFragment: true, number: 200, payload: pattern(1461)).octets]),
        (
            .protocolUntranslatable,
            [
                V4(number: 0).octets, V4(number: 43).octets, V4(number: 44).octets, V4(number: 60).octets,
                V4(number: 58).octets,
                V6(next: 1, payload: pattern(8)).octets, V6(next: 2, payload: pattern(8)).octets,
            ]
        ),
        (.igmp, [V4(number: 2, payload: pattern(8)).octets]),
        (
            .ipv6HeaderInvalid,
            [
                Array(V6().octets.prefix(39)), V6(payloadLength: 1).octets, V6(payloadLength: 65535).octets,
            ]
        ),
        (.destinationNotOurs, [V6(destination: .text("2001:db8::9")).octets, V6(destination: .allNodes).octets]),
        (
            .sourceIllegal,
            [
                V6(source: .unspecified).octets, V6(source: .text("::1")).octets, V6(source: .allNodes).octets,
                V6(source: .text("fe80::1")).with { $0.udp([]) }.octets,
                V6(source: .unspecified).icmp(1, 0, [0, 0, 0, 0], ErrorTests.quoted(8)).octets,
            ]
        ),
        (
            .sourceIPv4Illegal,
            [
                V6(source: .text("64:ff9b::0.0.0.0")).octets, V6(source: .text("64:ff9b::0.1.2.3")).octets,
                V6(source: .text("64:ff9b::127.0.0.1")).octets, V6(source: .text("64:ff9b::224.0.0.1")).octets,
                V6(source: .text("64:ff9b::239.255.255.255")).octets,
                V6(source: .text("64:ff9b::240.0.0.0")).octets, V6(source: .text("64:ff9b::255.255.255.255")).octets,
                V6(source: .text("64:ff9b::169.254.0.0")).octets, V6(source: .text("64:ff9b::169.254.255.255")).octets,
                V6(source: .text("64:ff9b::192.0.0.0")).octets, V6(source: .text("64:ff9b::192.0.0.8")).octets,
            ]
        ),
        (.sourceOwn, [V6(source: .text("64:ff9b::192.0.0.1")).with { $0.udp([]) }.octets]),
        (.sourceOutside, [V6(source: .text("2001:db8::9")).with { $0.udp([]) }.octets]),
        (
            .nativeICMPv6,
            [
                V6(source: .text("2001:db8::9")).icmp(128, 0).octets, V6(source: .text("fe80::9")).icmp(135, 0).octets,
                V6(
                    source: .text("2001:db8::9"), next: 44, extensions: V6.fragment(58, more: true, identification: 1),
                    payload: pattern(8)
                ).octets,
            ]
        ),
        (
            .extensionHeaderInvalid,
            [
                V6(next: 0).octets, V6(next: 0, payload: pattern(7)).octets,
                V6(next: 60, payload: [17, 1] + pattern(6)).octets,
                V6(next: 43, payload: [17, 255] + pattern(1000)).octets, V6(next: 44, payload: pattern(7)).octets,
            ]
        ),
        (.routingHeader, [V6(next: 43, payload: [17, 0, 0, 1, 0, 0, 0, 0] + pattern(8)).octets]),
        (.resultTooLong, [V6(next: 200, payload: pattern(65516)).octets]),
        (
            .fragmentExtension,
            [
                V6(next: 44, extensions: V6.fragment(0, identification: 1), payload: pattern(8)).octets,
                V6(next: 44, extensions: V6.fragment(43, more: true, identification: 1), payload: pattern(8)).octets,
                V6(next: 44, extensions: V6.fragment(44, identification: 1), payload: pattern(8)).octets,
                V6(next: 44, extensions: V6.fragment(60, identification: 1), payload: pattern(8)).octets,
                V6(next: 44, extensions: V6.fragment(51, offset: 8, identification: 1), payload: pattern(8)).octets,
            ]
        ),
        (
            .fragmentInvalid,
            [
                V4(more: true, number: 200, payload: pattern(9)).octets,
                V4(offset: 65528, number: 200, payload: pattern(8)).octets,
                V4(more: true, number: 200).octets, V4(offset: 8, number: 200).octets,
                V6(next: 44, extensions: V6.fragment(200, more: true, identification: 1), payload: pattern(9)).octets,
                V6(next: 44, extensions: V6.fragment(200, offset: 65528, identification: 1), payload: pattern(8))
                    .octets,
            ]
        ),
        (
            .transportTruncated,
            [
                V4(number: 6, payload: pattern(19)).octets, V4(number: 17, payload: pattern(7)).octets,
                V4(number: 1, payload: pattern(7)).octets, V4(number: 6).octets,
                V4(more: true, number: 6, payload: pattern(16)).octets,
                V6(next: 6, payload: pattern(19)).octets, V6(next: 17, payload: pattern(7)).octets, V6(next: 58).octets,
                V6(next: 58, payload: pattern(7)).octets,
            ]
        ),
        (
            .udpLengthInvalid,
            [
                V4(payload: word(1) + word(2) + word(7) + [0, 0]).octets,
                V4(payload: word(1) + word(2) + word(9) + [0, 0]).octets,
                V4(payload: word(1) + word(2) + word(0) + [0, 0]).octets,
            ]
        ),
        (
            .udpChecksumZero,
            [
                V6(payload: word(1) + word(2) + word(8) + [0, 0]).octets,
                V6(
                    next: 44, extensions: V6.fragment(17, more: true, identification: 1),
                    payload: word(1) + word(2) + word(99) + [0, 0]
                ).octets,
            ]
        ),
        (.neighborDiscovery, [V6().icmp(133, 0).octets, V6().icmp(135, 0).octets, V6().icmp(137, 0).octets]),
        (.multicastListener, [V6().icmp(130, 0).octets, V6().icmp(132, 0).octets, V6().icmp(143, 0).octets]),
        (
            .icmpType,
            [
                V4().icmp(13, 0).octets, V4().icmp(5, 1, [1, 1, 1, 1], ErrorTests.received(8)).octets,
                V6().icmp(200, 0).octets,
            ]
        ),
        (
            .icmpCode,
            [
                V4().icmp(3, 14, [0, 0, 0, 0], ErrorTests.received(8)).octets,
                V6().icmp(1, 5, [0, 0, 0, 0], ErrorTests.quoted(8)).octets,
                V6().icmp(4, 2, [0, 0, 0, 0], ErrorTests.quoted(8)).octets,
                V4().icmp(12, 1, [0, 0, 0, 0], ErrorTests.received(8)).octets,
            ]
        ),
        (
            .icmpPointer,
            [
                V4().icmp(12, 0, [5, 0, 0, 0], ErrorTests.received(8)).octets,
                V6().icmp(4, 0, [0, 0, 0, 40], ErrorTests.quoted(8)).octets,
                V6().icmp(4, 0, [0, 1, 0, 0], ErrorTests.quoted(8)).octets,
            ]
        ),
        (
            .icmpChecksumWrong,
            [
                V4(number: 1, payload: [3, 1, 1, 2, 0, 0, 0, 0] + ErrorTests.received(8)).octets,
                V6(next: 58, payload: [1, 1, 1, 2, 0, 0, 0, 0] + ErrorTests.quoted(8)).octets,
            ]
        ),
        (.pathMTUTooSmall, [V6().icmp(2, 0, [0, 0, 4, 0xff], ErrorTests.quoted(8)).octets]),
        (
            .embeddedInvalid,
            [
                V4().icmp(3, 1, [0, 0, 0, 0], Array(ErrorTests.received(8).prefix(19))).octets, V4().icmp(3, 1).octets,
                V4().icmp(3, 1, [0, 0, 0, 0], [0x46] + ErrorTests.received(8).dropFirst().prefix(19)).octets,
                V6().icmp(1, 0, [0, 0, 0, 0], Array(ErrorTests.quoted(8).prefix(39))).octets, V6().icmp(1, 0).octets,
                V6().icmp(1, 0, [0, 0, 0, 0], outbound { $0.next = 0 }.octets).octets,
                V6().icmp(
                    1, 0, [0, 0, 0, 0],
                    outbound { ($0.next, $0.payloadLength) = (60, 7) }.octets + [17, 0] + pattern(6)
                ).octets,
                V6().icmp(1, 0, [0, 0, 0, 0], outbound { $0.payloadLength = 65535 }.octets).octets,
            ]
        ),
        (
            .embeddedNotOurs,
            [
                V4().icmp(3, 1, [0, 0, 0, 0], V4().octets).octets, V6().icmp(1, 0, [0, 0, 0, 0], V6().octets).octets,
                V6().icmp(1, 0, [0, 0, 0, 0], outbound { $0.destination = .text("2001:db8::1") }.octets).octets,
                V6().icmp(1, 0, [0, 0, 0, 0], outbound { $0.source = .text("2001:db8::1") }.octets).octets,
            ]
        ),
        (
            .embeddedUntranslatable,
            [
                V4().icmp(3, 1, [0, 0, 0, 0], inbound().icmp(3, 1).octets).octets,
                V4().icmp(3, 1, [0, 0, 0, 0], inbound().icmp(13, 0).octets).octets,
                V4().icmp(3, 1, [0, 0, 0, 0], inbound { $0.number = 58 }.octets).octets,
                V4().icmp(3, 1, [0, 0, 0, 0], inbound { $0.number = 44 }.octets).octets,
                V6().icmp(1, 0, [0, 0, 0, 0], outbound().icmp(1, 0).octets).octets,
                V6().icmp(1, 0, [0, 0, 0, 0], outbound().icmp(135, 0).octets).octets,
                V6().icmp(1, 0, [0, 0, 0, 0], outbound { $0.next = 1 }.octets).octets,
            ]
        ),
    ]

    /// Reasons that need a configuration, a request of the kernel or a history; the tests that are named have them.
    static let elsewhere: Set<DropReason> = [
        .noHeadroom,  // headroom
        .offloadInvalid,  // OffloadTests.refused
        .privateUnderWellKnown,  // OutboundTests.privateDestinations
        .hopLimitExpired,  // AnswerTests.strictHopLimit
        .ipv6TooBig,  // AnswerTests.packetTooBig
        .fragmentDuplicate, .reassemblyOverlap, .reassemblyTimeout, .reassemblyNoRoom,  // ReassemblyTests
    ]

    @Test("Packets are refused for the reason that applies, and nothing is sent on", arguments: table)
    func refused(reason: DropReason, packets: [[UInt8]]) {
        for packet in packets {
            var bench = Bench()
            let output = bench.packets(packet)
            #expect(bench.drops == [reason.code: 1], "\(hex(packet))")
            let counts = bench.counters.snapshot()
            #expect(counts.outbound.packets + counts.inbound.packets == 0)
            #expect(output.count == Int(counts.errorsToHost + counts.errorsToNetwork))
        }
    }

    @Test("Every reason is in a table")
    func complete() {
        #expect(Set(Self.table.map(\.reason)).union(Self.elsewhere) == Set(DropReason.allCases))
    }

    @Test("Every reason has a code and a sentence of its own")
    func texts() {
        for reason in DropReason.allCases {
            #expect(
                reason.code.utf8.allSatisfy {
                    $0 == UInt8(ascii: "-") || UInt8(ascii: "0")...UInt8(ascii: "9") ~= $0
                        || UInt8(ascii: "a")...UInt8(ascii: "z") ~= $0
                })
            #expect(reason.sentence.hasSuffix("."))
        }
        #expect(Set(DropReason.allCases.map(\.code)).count == DropReason.allCases.count)
        #expect(Set(DropReason.allCases.map(\.sentence)).count == DropReason.allCases.count)
    }

    @Test(
        "A frame without headroom or past its buffer is refused",
        arguments: [95..<200, 96..<201, 0..<0, 200..<200, 96..<96])
    func headroom(frame: Range<Int>) {
        var bench = Bench()
        var memory = [UInt8](repeating: 0x45, count: 200)
        var recorder = Recorder()
        var span = memory.mutableSpan
        var bytes = span.mutableBytes
        bench.translator.translate(&bytes, frame: frame, now: 0, into: &recorder)
        #expect(recorder.frames.isEmpty)
        #expect(bench.drops.count == 1)
        #expect(bench.drops.keys.first == (frame.isEmpty && frame.lowerBound >= 96 ? "frame-truncated" : "no-headroom"))
    }

    @Test("Without mappings everything is refused, and more than four are left out")
    func mappingCount() {
        var bench = Bench(.init(mappings: [], ipv6MTU: 1500))
        #expect(bench.packets(V4().octets) == [] && bench.packets(V6().octets) == [])
        let many = (1...6).map {
            Mapping(ipv4: IPv4Address(192, 0, 0, $0), ipv6: .text("2001:db8::\($0)"), pref64: .wellKnown)
        }
        bench.translator.update(.init(mappings: many, ipv6MTU: 1500))
        #expect(bench.packets(V4(source: IPv4Address(192, 0, 0, 4)).with { $0.udp([]) }.octets).count == 1)
        #expect(bench.packets(V4(source: IPv4Address(192, 0, 0, 5)).with { $0.udp([]) }.octets) == [])
    }

    @Test("Impossible MTUs are held to possible ones")
    func mtus() {
        var configuration = TranslatorConfiguration(mappings: [.standard], ipv6MTU: 0)
        configuration.lowestIPv6MTU = .max
        configuration.ipv4MTU = .min
        var bench = Bench(configuration)
        #expect(bench.packets(V4().with { $0.udp(pattern(1232)) }.octets).count == 1)
        #expect(bench.packets(V4().with { $0.udp(pattern(1233)) }.octets).count == 2)
        #expect(bench.packets(V6().with { $0.udp(pattern(40)) }.octets).count == 1)
        #expect(bench.packets(V6().with { $0.udp(pattern(41)) }.octets).count == 2)
        configuration.ipv6MTU = .max
        bench.translator.update(configuration)
        #expect(bench.packets(V4(number: 200, payload: pattern(65515)).octets).count == 2)
    }
}

@Suite("Counters")
struct CounterTests {
    @Test("Packets and octets are counted by direction and protocol")
    func counts() {
        var bench = Bench()
        _ = bench.packets(V4(number: 6).with { $0.tcp(pattern(10)) }.octets)
        _ = bench.packets(V4().with { $0.udp(pattern(2000)) }.octets)
        _ = bench.packets(V4().icmp(8, 0).octets)
        _ = bench.packets(V4(number: 50, payload: pattern(20)).octets)
        _ = bench.packets(V6().with { $0.udp(pattern(10)) }.octets)
        _ = bench.packets(V6().icmp(1, 0, [0, 0, 0, 0], ErrorTests.quoted(8)).octets)
        let counts = bench.counters.snapshot()
        #expect(
            counts.outbound
                == .init(packets: 5, octets: 70 + 1496 + 608 + 48 + 60, tcp: 1, udp: 2, icmp: 1, other: 1))
        #expect(counts.inbound == .init(packets: 2, octets: 38 + 64, tcp: 0, udp: 1, icmp: 1, other: 0))
        #expect(counts.fragmentsMade == 2)
        #expect(counts[.igmp] == 0)
    }
}
