import ClatBase
import Testing

@testable import ClatTranslator

extension V6 {
    /// This packet's piece of a payload, under a Fragment header.
    func piece(_ payload: [UInt8], _ range: Range<Int>, identification: Int) -> [UInt8] {
        var copy = self
        copy.extensions = Self.fragment(
            next, offset: range.lowerBound, more: range.upperBound < payload.count, identification: identification)
        copy.next = 44
        copy.payload = Array(payload[range])
        return copy.octets
    }
}

extension V4 {
    /// This packet's piece of a payload.
    func piece(_ payload: [UInt8], _ range: Range<Int>) -> [UInt8] {
        var copy = self
        (copy.offset, copy.more) = (range.lowerBound, range.upperBound < payload.count)
        copy.payload = Array(payload[range])
        return copy.octets
    }
}

@Suite("Fragments")
struct FragmentTests {
    @Test(
        "IPv4 fragments gain a Fragment header; only the first has a checksum to adapt",
        arguments: AddressTests.embeddings)
    func outboundFragments(prefix: String, address: String) {
        var mapping = Mapping.standard
        mapping.pref64 = .text(prefix)
        var bench = Bench(.init(mappings: [mapping], ipv6MTU: 1500))
        let input = V4(destination: IPv4Address(192, 0, 2, 33), identification: 0xbeef)
        let output = outbound { $0.destination = .text(address) }
        let (from, to) = (input.udp(pattern(2500)), output.udp(pattern(2500)))
        for range in [0..<1232, 1232..<2464, 2464..<2508] {
            #expect(bench.hex(input.piece(from, range)) == hex(output.piece(to, range, identification: 0xbeef)))
        }
    }

    @Test("A first fragment of 1232 octets becomes one of 1280")
    func vector() {
        var bench = Bench()
        let input = V4(identification: 0xbeef)
        let output = bench.packets(input.piece(input.udp(pattern(1300)), 0..<1232)).first ?? []
        #expect(output.count == 1280)
        #expect(hex(Array(output[4..<7])) == "04d82c")
        #expect(hex(Array(output[40..<48])) == "110000010000beef")
        let last = bench.packets(input.piece(input.udp(pattern(1300)), 1232..<1308)).first ?? []
        #expect(hex(Array(last[40..<48])) == "110004d00000beef")
    }

    @Test(
        "IPv6 fragments lose their Fragment header; DF is clear and the identification the low half",
        arguments: AddressTests.embeddings)
    func inboundFragments(prefix: String, address: String) {
        var mapping = Mapping.standard
        mapping.pref64 = .text(prefix)
        var bench = Bench(.init(mappings: [mapping], ipv6MTU: 1500))
        let input = V6(source: .text(address))
        let output = inbound { ($0.source, $0.identification) = (IPv4Address(192, 0, 2, 33), 0xbeef) }
        let (from, to) = (input.udp(pattern(2500)), output.udp(pattern(2500)))
        for range in [0..<1232, 1232..<2464, 2464..<2508] {
            #expect(bench.hex(input.piece(from, range, identification: 0xabcd_beef)) == hex(output.piece(to, range)))
        }
    }

    @Test("Extension headers before a Fragment header are stepped over")
    func extensionBeforeFragment() {
        var bench = Bench()
        var input = V6(next: 60)
        input.extensions = octets("2c00010400000000") + V6.fragment(50, offset: 8, identification: 7)
        input.payload = pattern(30)
        var output = inbound { ($0.number, $0.offset, $0.identification) = (50, 8, 7) }
        output.payload = pattern(30)
        #expect(bench.hex(input.octets) == hex(output.octets))
    }

    @Test("An atomic fragment is a whole packet, an echo or a datagram, with DF clear")
    func atomic() {
        var bench = Bench()
        var echo = V6(next: 44)
        echo.extensions = V6.fragment(58, identification: 0x1_0007)
        echo = echo.icmp(129, 0, [0, 1, 0, 2], pattern(1400))
        let reply = inbound { $0.identification = 7 }.icmp(0, 0, [0, 1, 0, 2], pattern(1400))
        #expect(bench.hex(echo.octets) == hex(reply.octets))
        var empty = V6(next: 44)
        empty.extensions = V6.fragment(200, identification: 8)
        #expect(bench.hex(empty.octets) == hex(inbound { ($0.number, $0.identification) = (200, 8) }.octets))
        let datagram = V6().udp(pattern(1300))
        #expect(
            bench.hex(V6().piece(datagram, 0..<1308, identification: 9))
                == hex(inbound { $0.identification = 9 }.with { $0.udp(pattern(1300)) }.octets))
    }

    @Test("DF clear and small: no Fragment header", arguments: [0, 1, 1432, 1452])
    func noAtomicFragments(size: Int) {
        var bench = Bench()
        let output = bench.packets(V4().with { $0.udp(pattern(size)) }.octets).first ?? []
        #expect(output.count == 48 + size)
        #expect(output[6] == 17)
    }

    static let cuts: [(size: Int, lowest: Int, pieces: [Int])] = [
        (1452, 1500, [1460]), (1453, 1500, [1448, 13]), (2000, 1500, [1448, 560]), (3000, 1500, [1448, 1448, 112]),
        (1232, 1280, [1240]), (1233, 1280, [1232, 9]), (2000, 1280, [1232, 776]), (65507, 1500, []),
    ]

    @Test("DF clear and too large: fragments of at most the lowest IPv6 MTU", arguments: cuts)
    func cut(size: Int, lowest: Int, pieces: [Int]) {
        var configuration = TranslatorConfiguration.standard
        configuration.lowestIPv6MTU = lowest
        var bench = Bench(configuration)
        let output = bench.packets(V4(identification: 0xbeef).with { $0.udp(pattern(size)) }.octets)
        let whole = outbound().udp(pattern(size))
        if pieces.count == 1 { return #expect(output == [outbound().with { $0.udp(pattern(size)) }.octets]) }
        let sizes = pieces.isEmpty ? output.map { $0.count - 48 } : pieces
        var start = 0
        for (piece, size) in zip(output, sizes) {
            #expect(hex(piece) == hex(outbound().piece(whole, start..<start + size, identification: 0xbeef)))
            #expect(piece.count <= lowest)
            start += size
        }
        #expect(start == whole.count && output.count == sizes.count)
        #expect(bench.counters.snapshot().fragmentsMade == UInt64(sizes.count))
    }

    @Test("DF set: one packet up to the uplink's MTU, whatever the lowest IPv6 MTU is")
    func lowestMTUWithDF() {
        var configuration = TranslatorConfiguration.standard
        configuration.lowestIPv6MTU = 1280
        var bench = Bench(configuration)
        let input = V4(dontFragment: true).with { $0.udp(pattern(1452)) }
        #expect(bench.hex(input.octets) == hex(outbound().with { $0.udp(pattern(1452)) }.octets))
    }

    @Test("A fragment too large for its new header is cut again", arguments: [(0, true), (1480, true), (1480, false)])
    func cutFragment(offset: Int, more: Bool) {
        var bench = Bench()
        let whole = V4().udp(pattern(4000))
        let translated = outbound().udp(pattern(4000))
        var input = V4(identification: 5, more: more, offset: offset)
        input.payload = Array(whole[offset..<offset + 1480])
        if offset > 0 { #expect(bench.packets(V4(identification: 5).piece(whole, 0..<1448)).count == 1) }
        let output = bench.packets(input.octets)
        #expect(output.count == 2)
        let expected = [offset..<offset + 1448, offset + 1448..<offset + 1480].map { range in
            var piece = outbound { $0.next = 44 }
            let last = range.upperBound == offset + 1480
            piece.extensions = V6.fragment(17, offset: range.lowerBound, more: more || !last, identification: 5)
            piece.payload = Array(translated[range])
            return hex(piece.octets)
        }
        #expect(output.map(hex) == expected)
    }

    @Test("A packet with an unfinished checksum is finished before it is cut")
    func cutPartial() {
        var bench = Bench()
        let input = V4(identification: 5).with { $0.udp(pattern(2000), partial: true) }
        let output = bench.frames(input.octets, Virtio(partialAt: 20, offset: 6))
        let whole = outbound().udp(pattern(2000))
        let expected = [0..<1448, 1448..<2008].map { outbound().piece(whole, $0, identification: 5) }
        #expect(output == expected.map { Virtio().bytes + $0 })
    }

    @Test("Towards the host, what was at most 1280 octets is cut to the MTU there; a fragment too")
    func cutForHost() {
        var configuration = TranslatorConfiguration.standard
        configuration.ipv4MTU = 1000
        var bench = Bench(configuration)
        let output = bench.packets(V6().with { $0.udp(pattern(1200)) }.octets)
        let whole = inbound().udp(pattern(1200))
        #expect(output.map(hex) == [0..<976, 976..<1208].map { hex(inbound().piece(whole, $0)) })
        let from = V6().udp(pattern(1400))
        let to = inbound { $0.identification = 9 }
        let pieces = bench.packets(V6().piece(from, 0..<1400, identification: 9))
        let expected = [0..<976, 976..<1400].map { hex(to.piece(to.udp(pattern(1400)), $0)) }
        #expect(pieces.map(hex) == expected)
    }
}

@Suite("Reassembly")
struct ReassemblyTests {
    static let orders: [[Int]] = [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]]
    static let pieces = [0..<1448, 1448..<2896, 2896..<3008]

    @Test("A large ping leaves: put together, translated, cut again", arguments: orders)
    func pingOut(order: [Int]) {
        var bench = Bench()
        let input = V4(identification: 0xbeef, number: 1)
        let whole = input.icmp(8, 0, [0, 1, 0, 2], pattern(3000)).payload
        var output: [[UInt8]] = []
        for index in order { output += bench.packets(input.piece(whole, Self.pieces[index])) }
        let expected = outbound { $0.next = 58 }
        let translated = outbound().icmp(128, 0, [0, 1, 0, 2], pattern(3000)).payload
        #expect(output.map(hex) == Self.pieces.map { hex(expected.piece(translated, $0, identification: 0xbeef)) })
        #expect(bench.counters.snapshot().reassembled == 1)
        #expect(bench.drops == [:])
    }

    @Test("A large ping's reply arrives", arguments: orders)
    func pingIn(order: [Int]) {
        var bench = Bench()
        let input = V6(next: 58)
        let whole = V6().icmp(129, 0, [0, 1, 0, 2], pattern(3000)).payload
        var output: [[UInt8]] = []
        for index in order { output += bench.packets(input.piece(whole, Self.pieces[index], identification: 0x1_0009)) }
        let expected = inbound { ($0.number, $0.identification) = (1, 9) }
        let translated = inbound().icmp(0, 0, [0, 1, 0, 2], pattern(3000)).payload
        let ranges = [0..<1456, 1456..<2912, 2912..<3008]
        #expect(output.map(hex) == ranges.map { hex(expected.piece(translated, $0)) })
    }

    @Test("The largest ping there is passes both ways")
    func largest() {
        var bench = Bench()
        let echo = pattern(65507)
        let input = V4(number: 1)
        let whole = input.icmp(8, 0, [0, 1, 0, 2], echo).payload
        let output = Self.ranges(whole.count, 1480).flatMap { bench.packets(input.piece(whole, $0)) }
        let request = outbound { $0.next = 58 }
        let translated = outbound().icmp(128, 0, [0, 1, 0, 2], echo).payload
        #expect(
            output.map(hex)
                == Self.ranges(whole.count, 1448).map { hex(request.piece(translated, $0, identification: 0x1234)) })

        let answer = V6(next: 58)
        let answered = V6().icmp(129, 0, [0, 1, 0, 2], echo).payload
        let arrived = Self.ranges(whole.count, 1448).flatMap {
            bench.packets(answer.piece(answered, $0, identification: 9))
        }
        let reply = inbound { ($0.number, $0.identification) = (1, 9) }
        let expected = inbound().icmp(0, 0, [0, 1, 0, 2], echo).payload
        #expect(arrived.map(hex) == Self.ranges(whole.count, 1456).map { hex(reply.piece(expected, $0)) })
        #expect(bench.drops == [:])
    }

    @Test("One octet more than that has no length, either way")
    func tooLong() {
        var bench = Bench()
        let whole = [128, 0, 0, 0] + pattern(65512)
        for range in Self.ranges(whole.count, 1480) {
            #expect(bench.packets(V4(number: 1).piece(whole, range)) == [])
            #expect(bench.packets(V6(next: 58).piece(whole, range, identification: 9)) == [])
        }
        #expect(bench.drops == ["fragment-invalid": 1, "result-too-long": 1])
    }

    private static func ranges(_ count: Int, _ size: Int) -> [Range<Int>] {
        stride(from: 0, to: count, by: size).map { $0..<min($0 + size, count) }
    }

    /// Octets of the host's first fragment, of its second, and the most that leaves.
    static let followed: [(first: Int, second: Int, most: Int)] = [
        (1352, 656, 1400), (656, 1352, 1400), (1232, 776, 1280), (1008, 1000, 1280), (1480, 528, 1500),
    ]

    @Test("What was put together is cut no larger than the host has cut it, but to 1280 octets", arguments: followed)
    func pathMTU(first: Int, second: Int, most: Int) {
        var bench = Bench()
        let input = V4(identification: 5, number: 1)
        let whole = input.icmp(8, 0, [0, 1, 0, 2], pattern(2000)).payload
        let pieces = [0..<first, first..<first + second]
        let output = pieces.flatMap { bench.packets(input.piece(whole, $0)) }
        let translated = outbound().icmp(128, 0, [0, 1, 0, 2], pattern(2000)).payload
        let room = (most - 48) & ~7
        let expected = outbound { $0.next = 58 }
        #expect(
            output.map(hex)
                == Self.ranges(2008, room).map { hex(expected.piece(translated, $0, identification: 5)) })
        // What follows whole is cut as ever.
        #expect(bench.packets(V4().with { $0.udp(pattern(2000)) }.octets).map(\.count) == [1496, 608])
    }

    @Test("A fragmented UDP packet without checksum gets one, in whatever order it comes", arguments: orders)
    func zeroChecksum(order: [Int]) {
        var bench = Bench()
        let input = V4(identification: 0xbeef)
        var whole = input.udp(pattern(2992))
        put(0, 6, &whole)
        var output: [[UInt8]] = []
        for index in order { output += bench.packets(input.piece(whole, Self.pieces[index].clamped(to: 0..<3000))) }
        let translated = outbound().udp(pattern(2992))
        let ranges = [0..<1448, 1448..<2896, 2896..<3000]
        #expect(output.map(hex) == ranges.map { hex(outbound().piece(translated, $0, identification: 0xbeef)) })
        #expect(bench.drops == [:])
    }

    @Test("UDP fragments before their first one wait for it, then leave together", arguments: orders)
    func firstIsLate(order: [Int]) {
        var bench = Bench()
        let input = V4(identification: 0xbeef)
        let whole = input.udp(pattern(3000))
        var output: [[UInt8]] = []
        for (place, index) in order.enumerated() {
            output += bench.packets(input.piece(whole, Self.pieces[index]))
            #expect(output.count == (order[0] == 0 ? place + 1 : place == 2 ? 3 : 0))
        }
        let translated = outbound().udp(pattern(3000))
        let leaving = order[0] == 0 ? order : [0, 1, 2]
        #expect(
            output.map(hex)
                == leaving.map { hex(outbound().piece(translated, Self.pieces[$0], identification: 0xbeef)) })
        #expect(bench.counters.snapshot().reassembled == (order[0] == 0 ? 0 : 1))
        #expect(bench.drops == [:])
    }

    @Test("For 30 seconds it is known that a first UDP fragment has passed, and of the last 128 packets")
    func passedFirsts() {
        var bench = Bench()
        func piece(_ identification: Int, _ range: Range<Int>) -> [UInt8] {
            let input = V4(identification: identification)
            return input.piece(input.udp(pattern(100)), range)
        }
        for identification in 0...128 { #expect(bench.packets(piece(identification, 0..<64)).count == 1) }
        #expect(bench.packets(piece(0, 64..<108)) == [])
        bench.now += Reassembler.timeout - 1
        #expect(bench.packets(piece(1, 64..<108)).count == 1)
        #expect(bench.packets(piece(128, 64..<108)).count == 1)
        bench.now += 1
        #expect(bench.packets(piece(128, 64..<108)) == [])
    }

    @Test(
        "It takes its traffic class and hop limit from the first fragment, whenever that comes",
        arguments: [true, false])
    func firstHeader(isFirst: Bool) {
        var bench = Bench()
        let whole = V4().icmp(8, 0, [0, 1, 0, 2], pattern(16)).payload
        let first = V4(tos: 2, ttl: 8, number: 1).piece(whole, 0..<16)
        let second = V4(tos: 1, ttl: 9, number: 1).piece(whole, 16..<24)
        _ = bench.packets(isFirst ? first : second)
        let expected = outbound { ($0.trafficClass, $0.hopLimit) = (2, 7) }.icmp(128, 0, [0, 1, 0, 2], pattern(16))
        #expect(bench.hex(isFirst ? second : first) == hex(expected.octets))

        let whole6 = V6().icmp(129, 0, [0, 1, 0, 2], pattern(16)).payload
        let first6 = V6(trafficClass: 2, hopLimit: 8, next: 58).piece(whole6, 0..<16, identification: 5)
        let second6 = V6(trafficClass: 1, hopLimit: 9, next: 58).piece(whole6, 16..<24, identification: 5)
        _ = bench.packets(isFirst ? first6 : second6)
        let expected6 = inbound { ($0.tos, $0.ttl, $0.identification) = (2, 7, 5) }
            .icmp(0, 0, [0, 1, 0, 2], pattern(16))
        #expect(bench.hex(isFirst ? second6 : first6) == hex(expected6.octets))
    }

    static let overlaps: [(name: String, pieces: [Range<Int>])] = [
        ("by one unit", [0..<16, 8..<24]), ("within another", [0..<16, 8..<16]), ("around another", [8..<16, 0..<16]),
        ("two of the same octets", [0..<8, 8..<16, 0..<16]),
        ("beyond the end", [16..<24, 24..<40]), ("two ends", [16..<24, 8..<16, 0..<8]),
    ]

    @Test("Fragments that overlap or contradict each other condemn their packet", arguments: overlaps)
    func overlap(name: String, pieces: [Range<Int>]) {
        var bench = Bench()
        let whole = V4().icmp(8, 0, [0, 1, 0, 2], pattern(16)).payload
        var input = V4(number: 1)
        for range in pieces {
            if name == "beyond the end", range.lowerBound == 24 {
                (input.offset, input.more, input.payload) = (24, true, pattern(16))
                #expect(bench.packets(input.octets) == [])
            } else if name == "two ends", range.lowerBound == 8 {
                (input.offset, input.more, input.payload) = (8, false, pattern(5))
                #expect(bench.packets(input.octets) == [])
            } else {
                #expect(bench.packets(input.piece(whole, range)) == [])
            }
        }
        #expect(bench.drops["reassembly-overlap"] ?? 0 >= 1)
        // Nothing of the same packet gets through any more, until its time is over.
        for range in [0..<16, 16..<24] { #expect(bench.packets(V4(number: 1).piece(whole, range)) == []) }
        bench.now += Reassembler.timeout
        #expect(bench.packets(V4(number: 1).piece(whole, 0..<16)) == [])
        #expect(bench.packets(V4(number: 1).piece(whole, 16..<24)).count == 1)
        #expect(bench.drops["reassembly-timeout"] == nil)
    }

    static let three = [0..<16, 16..<24, 24..<29]

    @Test("A fragment that comes again is ignored", arguments: three)
    func duplicate(again: Range<Int>) {
        var bench = Bench()
        let whole = V4().icmp(8, 0, [0, 1, 0, 2], pattern(21)).payload
        let input = V4(number: 1)
        let others = Self.three.filter { $0 != again }
        for range in [again, again, others[0]] { #expect(bench.packets(input.piece(whole, range)) == []) }
        let expected = outbound().icmp(128, 0, [0, 1, 0, 2], pattern(21))
        #expect(bench.hex(input.piece(whole, others[1])) == hex(expected.octets))
        #expect(bench.drops == ["fragment-duplicate": 1])
    }

    @Test("A fragment in the place of another with other octets condemns its packet", arguments: three)
    func otherOctets(place: Range<Int>) {
        var whole = V4().icmp(8, 0, [0, 1, 0, 2], pattern(21)).payload
        let fragment = V4(number: 1).piece(whole, place)
        whole[place.upperBound - 1] ^= 1
        contradict(fragment, V4(number: 1).piece(whole, place))
    }

    @Test("So does one that disagrees about being the last, or about the end", arguments: [16..<24, 24..<29])
    func otherEnd(place: Range<Int>) {
        let whole = V4().icmp(8, 0, [0, 1, 0, 2], pattern(21)).payload + [0, 0, 0]
        let last = V4(number: 1).piece(Array(whole[..<place.upperBound]), place)
        var other = V4(more: true, offset: place.lowerBound, number: 1)
        other.payload = Array(whole[place.lowerBound..<(place.upperBound + 7) & ~7])
        contradict(last, other.octets)
        contradict(other.octets, last)
    }

    private func contradict(_ fragment: [UInt8], _ other: [UInt8]) {
        var bench = Bench()
        let whole = V4().icmp(8, 0, [0, 1, 0, 2], pattern(21)).payload
        for packet in [fragment, other] { #expect(bench.packets(packet) == []) }
        for range in Self.three { #expect(bench.packets(V4(number: 1).piece(whole, range)) == []) }
        #expect(bench.drops == ["reassembly-overlap": 4])
    }

    @Test("Fragments wait for 30 seconds")
    func timeout() {
        var bench = Bench()
        let whole = V4().icmp(8, 0, [0, 1, 0, 2], pattern(16)).payload
        let input = V4(number: 1)
        _ = bench.packets(input.piece(whole, 0..<16))
        bench.now += Reassembler.timeout - 1
        _ = bench.packets(V4(identification: 1, number: 1).piece(whole, 0..<16))
        #expect(bench.drops == [:])
        bench.now += 1
        #expect(bench.packets(input.piece(whole, 16..<24)) == [])
        #expect(bench.drops == ["reassembly-timeout": 1])
    }

    @Test("Packets are told apart by identification, addresses and direction")
    func keys() {
        var bench = Bench()
        let whole = V4().icmp(8, 0, [0, 1, 0, 2], pattern(16)).payload
        let inputs = [
            V4(identification: 1, number: 1), V4(identification: 2, number: 1),
            V4(destination: IPv4Address(198, 51, 100, 2), identification: 1, number: 1),
        ]
        for input in inputs { #expect(bench.packets(input.piece(whole, 0..<16)) == []) }
        for input in inputs { #expect(bench.packets(input.piece(whole, 16..<24)).count == 1) }
    }

    @Test("At most 64 packets wait; the oldest gives way")
    func entryLimit() {
        var bench = Bench()
        let whole = V4().icmp(8, 0, [0, 1, 0, 2], pattern(16)).payload
        for number in 0...64 {
            bench.now += 1
            _ = bench.packets(V4(identification: number, number: 1).piece(whole, 0..<16))
        }
        #expect(bench.drops == ["reassembly-no-room": 1])
        #expect(bench.packets(V4(identification: 64, number: 1).piece(whole, 16..<24)).count == 1)
        #expect(bench.packets(V4(identification: 1, number: 1).piece(whole, 16..<24)).count == 1)
        #expect(bench.packets(V4(identification: 0, number: 1).piece(whole, 16..<24)) == [])
    }

    @Test("At most 1 MiB waits; the oldest gives way, and the newest can still be completed")
    func memoryLimit() {
        var bench = Bench()
        let whole = V4().icmp(8, 0, [0, 1, 0, 2], pattern(60000)).payload
        for number in 0..<40 {
            bench.now += 1
            let input = V4(identification: number, number: 1)
            for start in stride(from: 0, to: 59200, by: 1480) {
                #expect(bench.packets(input.piece(whole, start..<start + 1480)) == [])
            }
        }
        // 29 chunks of 2048 octets each: 17 packets fit into 512.
        #expect(bench.drops == ["reassembly-no-room": 23])
        #expect(bench.packets(V4(identification: 39, number: 1).piece(whole, 59200..<60008)).count > 1)
    }

    @Test("Fragments of other UDP packets pass while one waits")
    func others() {
        var bench = Bench()
        var whole = V4().udp(pattern(1600))
        #expect(bench.packets(V4(identification: 2).piece(whole, 0..<800)).count == 1)
        put(0, 6, &whole)
        _ = bench.packets(V4(identification: 1).piece(whole, 0..<800))
        #expect(bench.packets(V4(identification: 2).piece(whole, 800..<1608)).count == 1)
        #expect(bench.packets(V4(identification: 1).piece(whole, 800..<1608)).count == 2)
    }
}
