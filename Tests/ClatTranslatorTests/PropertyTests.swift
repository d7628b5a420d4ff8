import ClatBase
import Testing

@testable import ClatTranslator

/// SplitMix64: small, seeded, the same everywhere.
struct Seeded: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
        return z ^ z >> 31
    }

    /// True in so many of a hundred cases.
    mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &self) < percent }
    mutating func bytes(_ count: Int) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(count + 8)
        while result.count < count {
            var word = next()
            for _ in 0..<8 {
                result.append(UInt8(truncatingIfNeeded: word))
                word >>= 8
            }
        }
        result.removeLast(result.count - count)
        return result
    }
    mutating func pick<T>(_ values: [T]) -> T { values[Int(next() % UInt64(values.count))] }
}

@Suite("Properties of random packets")
struct PropertyTests {
    #if DEBUG
        static let count = 2_000
    #else
        static let count = 100_000
    #endif
    /// Four for each of the three properties: 1.2 million packets in all in a release build. A failure names its seed.
    static let seeds: [UInt64] = [1, 2, 3, 4]

    static let mappings: [Mapping] = AddressTests.embeddings.flatMap { prefix, _ in
        let pref64 = PREF64.text(prefix)
        let ipv4 = IPv4Address(192, 0, 0, 1)
        let plain = IPv6Address.text("2001:db8:1:2:a1b2:c3d4:e5f6:718")
        guard let link = IPv6Prefix(plain, length: 64) else { return [Mapping]() }
        let neutral = Mapping.checksumNeutralAddress(for: ipv4, pref64: pref64, prefix: link, identifier: plain.low)
        return [plain, neutral].map { Mapping(ipv4: ipv4, ipv6: $0, pref64: pref64) }
    }

    /// A transport payload, and how the kernel would mark it.
    struct Content {
        var number: UInt8
        var payload: [UInt8]
        var virtio = Virtio()
        /// Where its checksum is.
        var field: Int?
        var isZeroed = false
    }

    /// A protocol with a right checksum for that packet; `version` 4 or 6 says which ICMP.
    static func content(
        for packet: some IPPacket, version: Int, start: Int, fragment: Bool, _ random: inout Seeded
    ) -> Content {
        var size = random.chance(5) ? Int.random(in: 0...1400, using: &random) : Int.random(in: 0...60, using: &random)
        // Nothing but ESP may follow a Fragment header that IPv6 reads as its own.
        let icmp: UInt8 = version == 4 ? 1 : 58
        let numbers: [UInt8] = [6, 6, 17, 17, 33, 136, fragment ? 50 : icmp, 50, 132, 47, fragment ? 50 : 51, 200]
        let number = random.pick(numbers)
        let isGSO = !fragment && random.chance(5) && (number == 6 || number == 17)
        if isGSO { size = Int.random(in: 600...4000, using: &random) }
        let data = random.bytes(size)
        var content: Content
        switch number {
        case 6:
            let header = random.bytes(12) + [0x50, 0x10] + random.bytes(6)
            content = Content(number: number, payload: header + data, field: 16)
        case 17: content = Content(number: number, payload: random.bytes(4) + word(8 + size) + [0, 0] + data, field: 6)
        case 33: content = Content(number: number, payload: random.bytes(12) + data, field: 6)
        case 136: content = Content(number: number, payload: random.bytes(4) + [0, 0, 0, 0] + data, field: 6)
        case 1, 58:
            let isRequest = random.chance(50)
            let type: UInt8 = number == 1 ? (isRequest ? 8 : 0) : (isRequest ? 128 : 129)
            content = Content(number: number, payload: [type, 0, 0, 0] + random.bytes(4) + data)
            let pseudo = number == 58 ? packet.pseudoHeader(content.payload.count, 58) : []
            put(~slowSum(pseudo + content.payload), 2, &content.payload)
            return content
        default: return Content(number: number, payload: data)
        }
        guard let field = content.field else { return content }
        let partial = !fragment && (number == 6 || number == 17) && (isGSO || random.chance(30))
        content.payload = packet.checksummed(content.payload, number, at: field, partial: partial)
        if partial { content.virtio = Virtio(partialAt: UInt16(start), offset: UInt16(field)) }
        if isGSO {
            content.virtio.gsoType = number == 17 ? 5 : version == 4 ? 1 : 4
            content.virtio.gsoSize = UInt16.random(in: 100...1400, using: &random)
            content.virtio.headerLength = UInt16(start + (number == 17 ? 8 : 20))
        }
        if version == 4, number == 17, !fragment, !partial, random.chance(10) {
            put(0, 6, &content.payload)
            content.isZeroed = true
        }
        return content
    }

    /// An IPv4 address that may be a destination and a source.
    static func remote(_ random: inout Seeded) -> IPv4Address {
        while true {
            let address = IPv4Address(rawValue: UInt32(truncatingIfNeeded: random.next()))
            let first = address.rawValue >> 24
            if (1..<224).contains(first), first != 127, first != 169, first != 192 { return address }
        }
    }

    /// A fragment's place for that content, which it may cut; nil for a whole packet.
    static func fragment(_ content: inout Content, _ random: inout Seeded) -> (offset: Int, more: Bool) {
        let offset = random.chance(50) ? 0 : Int.random(in: 1...4000, using: &random) * 8
        let more = offset == 0 || random.chance(50)
        if offset > 0 { content.field = nil }
        if content.payload.isEmpty { content.payload = random.bytes(8) }
        if more { content.payload += random.bytes(-content.payload.count & 7) }
        return (offset, more)
    }

    /// Equal but for the checksum, which is verified elsewhere, or in a fragment is equal modulo 0xffff.
    static func same(_ left: ArraySlice<UInt8>, _ content: Content, isFragment: Bool) -> Bool {
        guard left.count == content.payload.count else { return false }
        let field = content.field ?? (content.number == 1 || content.number == 58 ? 2 : -10)
        if isFragment, field >= 0 {
            let (new, old) = (word(Array(left), field), word(content.payload, field))
            guard new % 0xffff == old % 0xffff else { return false }
        }
        return zip(left, content.payload).enumerated().allSatisfy { index, pair in
            pair.0 == pair.1 || index == field || index == field + 1
        }
    }

    @Test("Out and back: IPv4 to IPv6 to IPv4 gives the packet, but for what the RFC changes", arguments: seeds)
    func outAndBack(seed: UInt64) {
        var random = Seeded(state: seed)
        var benches = Benches()
        for round in 0..<Self.count {
            let index = Int(random.next() % UInt64(Self.mappings.count))
            var input = V4(
                destination: Self.remote(&random), tos: UInt8(truncatingIfNeeded: random.next()),
                identification: Int(random.next() & 0xffff), dontFragment: random.chance(50),
                ttl: UInt8.random(in: 3...255, using: &random))
            if random.chance(10) { input.options = [1, 1, 1, 1] }
            let isFragment = random.chance(15)
            var content = Self.content(
                for: input, version: 4, start: 20 + input.options.count, fragment: isFragment, &random)
            if isFragment { (input.offset, input.more) = Self.fragment(&content, &random) }
            (input.number, input.payload) = (content.number, content.payload)
            benches.letPass(index, input.octets)
            let out = benches.frames(index, input.octets, content.virtio)
            guard out.count == 1, fault(out[0]) == nil else {
                return report("out \(fault(out.first ?? []) ?? "\(out.count) frames")", seed, round, input.octets)
            }
            var returned = Array(out[0].dropFirst(10))
            returned.replaceSubrange(8..<40, with: out[0][34..<50] + out[0][18..<34])
            let back = benches.frames(index, returned, Virtio(out[0].prefix(10)))
            guard back.count == 1, fault(back[0]) == nil else {
                return report("back \(fault(back.first ?? []) ?? "\(back.count) frames")", seed, round, input.octets)
            }
            var expected = V4(
                source: input.destination, destination: input.source, tos: input.tos,
                identification: input.identification,
                more: input.more, offset: input.offset, ttl: input.ttl - 2, number: input.number)
            let header = input.number == 6 ? 20 : 8
            let size = content.virtio.gsoType == 0 ? input.payload.count : Int(content.virtio.gsoSize) + header
            if !isFragment {
                expected.dontFragment = 20 + min(size, input.payload.count) > 1260
                expected.identification = word(back[0], 14)
            }
            expected.payload = Array(back[0].dropFirst(30))
            guard back[0].dropFirst(10).elementsEqual(expected.octets),
                Self.same(back[0][30...], content, isFragment: isFragment)
            else { return report("changed to \(hex(back[0]))", seed, round, input.octets) }
            var virtio = content.virtio
            if virtio.flags == 1 { virtio.checksumStart = 20 }
            if virtio.headerLength > 0 { virtio.headerLength -= UInt16(input.options.count) }
            guard Virtio(back[0].prefix(10)) == virtio else {
                return report("offload changed to \(back[0].prefix(10))", seed, round, input.octets)
            }
        }
    }

    @Test("In and back: IPv6 to IPv4 to IPv6 gives the packet, but for what the RFC changes", arguments: seeds)
    func inAndBack(seed: UInt64) {
        var random = Seeded(state: ~seed)
        var benches = Benches()
        for round in 0..<Self.count {
            let index = Int(random.next() % UInt64(Self.mappings.count))
            let mapping = Self.mappings[index]
            var input = V6(
                source: mapping.pref64.embed(Self.remote(&random)), destination: mapping.ipv6,
                trafficClass: UInt8(truncatingIfNeeded: random.next()), flowLabel: Int(random.next() & 0xfffff),
                hopLimit: UInt8.random(in: 3...255, using: &random))
            let isFragment = random.chance(15)
            let hasOptions = random.chance(10)
            let start = 40 + (hasOptions ? 8 : 0)
            var content = Self.content(for: input, version: 6, start: start, fragment: isFragment, &random)
            (input.next, input.payload) = (content.number, content.payload)
            var identification = 0
            var place = (offset: 0, more: false)
            if isFragment {
                identification = Int(random.next() & 0xffff_ffff)
                place = Self.fragment(&content, &random)
                input.payload = content.payload
                input.extensions = V6.fragment(
                    input.next, offset: place.offset, more: place.more, identification: identification)
                input.next = 44
            }
            if hasOptions {
                input.extensions = [input.next, 0, 1, 4, 0, 0, 0, 0] + input.extensions
                input.next = 60
            }
            let inside = benches.frames(index, input.octets, content.virtio)
            guard inside.count == 1, fault(inside[0]) == nil else {
                return report("in \(fault(inside.first ?? []) ?? "\(inside.count) frames")", seed, round, input.octets)
            }
            var returned = Array(inside[0].dropFirst(10))
            returned.replaceSubrange(12..<20, with: inside[0][26..<30] + inside[0][22..<26])
            benches.letPass(index, returned)
            let back = benches.frames(index, returned, Virtio(inside[0].prefix(10)))
            guard back.count == 1, fault(back[0]) == nil else {
                return report("back \(fault(back.first ?? []) ?? "\(back.count) frames")", seed, round, input.octets)
            }
            var expected = V6(
                source: input.destination, destination: input.source, trafficClass: input.trafficClass,
                hopLimit: input.hopLimit - 2, next: content.number)
            if isFragment {
                expected.next = 44
                expected.extensions = V6.fragment(
                    content.number, offset: place.offset, more: place.more, identification: identification & 0xffff)
            }
            let payload = back[0].dropFirst(10 + 40 + expected.extensions.count)
            expected.payload = Array(payload)
            guard back[0].dropFirst(10).elementsEqual(expected.octets),
                Self.same(payload, content, isFragment: isFragment)
            else { return report("changed to \(hex(back[0]))", seed, round, input.octets) }
            var virtio = content.virtio
            if virtio.flags == 1 { virtio.checksumStart = 40 }
            if virtio.headerLength > 0, hasOptions { virtio.headerLength -= 8 }
            guard Virtio(back[0].prefix(10)) == virtio else {
                return report("offload changed to \(back[0].prefix(10))", seed, round, input.octets)
            }
        }
    }

    @Test(
        "Whatever comes, what goes out has right lengths and IP headers, an error its checksum, and nothing breaks",
        arguments: seeds)
    func chaos(seed: UInt64) {
        var random = Seeded(state: seed ^ 0xffff)
        var benches = Benches()
        let corpus = Self.corpus
        for round in 0..<Self.count {
            var packet = random.pick(corpus)
            for _ in 0..<Int.random(in: 0...4, using: &random) where !packet.isEmpty {
                packet[Int(random.next() % UInt64(packet.count))] = UInt8(truncatingIfNeeded: random.next())
            }
            if random.chance(20) { packet.removeLast(Int(random.next() % UInt64(packet.count + 1))) }
            if random.chance(10) { packet += random.bytes(20) }
            if random.chance(80) { Self.repair(&packet) }
            var virtio = Virtio()
            if random.chance(30) { virtio = Virtio(random.bytes(10).map { random.chance(60) ? $0 & 0x3f : $0 }) }
            let index = Int(random.next() % UInt64(Self.mappings.count))
            for frame in benches.frames(index, packet, virtio) {
                if let fault = fault(frame, transport: false) { return report(fault, seed, round, packet) }
                guard frame.count <= max(10 + packet.count + 40, 10 + 1280) else {
                    return report("\(frame.count) octets", seed, round, packet)
                }
            }
        }
        // Otherwise the errors of the translator's own would be out of sight.
        #expect(benches.answers > Self.count / 100)
    }

    private func report(_ what: String, _ seed: UInt64, _ round: Int, _ packet: [UInt8]) {
        Issue.record("\(what): seed \(seed), round \(round), packet \(hex(packet))")
    }

    /// Packets of every kind that the tables know.
    static let corpus: [[UInt8]] =
        RefusalTests.table.flatMap(\.packets).filter { $0.count < 3000 && !$0.isEmpty }
        + ErrorTests.toIPv4.map { V6().icmp($0.type, $0.code, octets($0.second), ErrorTests.quoted(40)).octets }
        + ErrorTests.toIPv6.map { V4().icmp($0.type, $0.code, octets($0.second), ErrorTests.received(40)).octets }
        + [
            octets(ErrorTests.timeExceeded), V4().with { $0.udp(pattern(30)) }.octets,
            V4(number: 6).with { $0.tcp([1]) }.octets,
            V4(more: true, number: 1, payload: pattern(16)).octets,
            V4(offset: 16, number: 1, payload: pattern(9)).octets,
            V6(next: 44, extensions: V6.fragment(58, more: true, identification: 5), payload: pattern(16)).octets,
            V6(next: 44, extensions: V6.fragment(58, offset: 16, identification: 5), payload: pattern(9)).octets,
            V6().icmp(
                3, 0, [16, 0, 0, 0],
                ExtensionTests.padded(ErrorTests.quoted(300), 128) + ExtensionTests.structure(ExtensionTests.object)
            ).octets,
            V4().icmp(
                3, 1, [0, 32, 0, 0],
                ExtensionTests.padded(ErrorTests.received(300), 128) + ExtensionTests.structure(ExtensionTests.object)
            ).octets,
        ]

    /// Makes the IPv4 header checksum and the checksum of an ICMP error right again, so that damage gets further in.
    static func repair(_ packet: inout [UInt8]) {
        guard let first = packet.first else { return }
        if first >> 4 == 4, packet.count >= 20 {
            let length = max(20, min(packet.count, Int(first & 15) * 4))
            put(0, 10, &packet)
            put(~slowSum(Array(packet[..<length])), 10, &packet)
            guard packet[9] == 1, packet.count >= length + 8 else { return }
            put(0, length + 2, &packet)
            put(~slowSum(Array(packet[length..<min(packet.count, max(length, word(packet, 2)))])), length + 2, &packet)
        } else if first >> 4 == 6, packet.count >= 48, packet[6] == 58 {
            put(0, 42, &packet)
            let end = min(packet.count, 40 + word(packet, 4))
            guard end >= 44 else { return }
            put(~slowSum(Array(packet[8..<40]) + long(end - 40) + [0, 0, 0, 58] + packet[40..<end]), 42, &packet)
        }
    }
}

/// A translator for each of the mappings.
struct Benches: ~Copyable {
    private let counters = TranslatorCounters()
    private var translator: Translator
    private var current = -1
    /// A second after boot, and a second later with each packet, so that errors are answered and fragments expire.
    private var now: UInt64 = 1_000_000_000
    /// Errors of the translator's own so far.
    var answers: UInt64 { counters.snapshot().errorsToHost + counters.snapshot().errorsToNetwork }

    init() {
        translator = Translator(.init(mappings: [], ipv6MTU: 1500), counters: counters)
        translator.spoil()
    }

    /// If that is a later fragment of a UDP packet from the host, sends a first one before it, as it would wait for that.
    mutating func letPass(_ index: Int, _ packet: [UInt8]) {
        guard packet[9] == 17, word(packet, 6) & 0x1fff != 0 else { return }
        var first = V4(
            destination: IPv4Address(packet[16], packet[17], packet[18], packet[19]),
            identification: word(packet, 4), more: true)
        first.payload = pattern(8)
        _ = frames(index, first.octets, Virtio())
    }

    mutating func frames(_ index: Int, _ packet: [UInt8], _ virtio: Virtio) -> [[UInt8]] {
        if index != current {
            translator.update(.init(mappings: [PropertyTests.mappings[index]], ipv6MTU: 1500))
            current = index
        }
        var memory = [UInt8](repeating: 0xa5, count: Translator.headroom) + virtio.bytes + packet
        var recorder = Recorder()
        var span = memory.mutableSpan
        var bytes = span.mutableBytes
        translator.translate(&bytes, frame: Translator.headroom..<bytes.byteCount, now: now, into: &recorder)
        now += 1_000_000_000
        return recorder.frames
    }
}
