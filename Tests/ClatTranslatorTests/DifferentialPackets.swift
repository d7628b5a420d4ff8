import ClatBase

@testable import ClatTranslator

/// Packets for two translators: one, or the fragments of one.
struct DifferentialCase {
    var kind: String
    var packets: [[UInt8]]
}

/// Random packets of every kind that a network and a host send, both ways, with right checksums unless the kind says
/// otherwise.
struct DifferentialPackets {
    var random: Seeded
    /// The first is checksum-neutral, the second is not.
    let mappings: [Mapping]
    private var serial = 0

    init(seed: UInt64, mappings: [Mapping]) {
        random = Seeded(state: seed)
        self.mappings = mappings
    }

    /// What chance finds too seldom.
    static let rare: [DifferentialCase] = {
        var quoted = ClatTranslatorTests.outbound { $0.next = 44 }
        quoted.extensions = V6.fragment(51, more: true, identification: 1)
        quoted.payload = pattern(16)
        let received = ClatTranslatorTests.inbound { $0.number = 6 }.with { $0.tcp([]) }
        return [
            V4(dontFragment: true, options: [1, 1, 1, 1]).with { $0.udp(pattern(1452)) }.octets,
            V4().icmp(3, 1, [0, 0, 0, 0], Array(received.octets.prefix(28))).octets,
            V6().icmp(3, 1, [0, 0, 0, 0], quoted.octets).octets,
        ].map { .init(kind: "rare", packets: [DifferentialTests.moved($0)]) }
    }()

    mutating func next() -> DifferentialCase {
        serial += 1
        return random.chance(50) ? outbound() : inbound()
    }

    private mutating func size() -> Int {
        random.chance(30)
            ? random.pick([1212, 1232, 1240, 1252, 1260, 1280, 1400, 1432, 1440])
                + Int.random(in: -9...9, using: &random)
            : Int.random(in: 0...200, using: &random)
    }

    /// An address with a rule of its own, or that looks as if it had one.
    private mutating func special() -> IPv4Address {
        random.pick([
            IPv4Address(10, 1, 2, 3), IPv4Address(172, 16, 0, 1), IPv4Address(192, 168, 0, 9),
            IPv4Address(100, 64, 0, 1), IPv4Address(192, 88, 99, 1), IPv4Address(198, 18, 0, 1),
            IPv4Address(169, 254, 1, 1), IPv4Address(127, 0, 0, 1), IPv4Address(0, 1, 2, 3),
            IPv4Address(224, 0, 0, 5), IPv4Address(240, 0, 0, 1), IPv4Address(255, 255, 255, 255),
            IPv4Address(192, 0, 0, 5), IPv4Address(192, 0, 0, 8), mappings[0].ipv4,
        ])
    }

    /// The number of a payload, the payload with a right checksum under that packet's addresses, and what it is.
    private mutating func content(_ packet: some IPPacket, isIPv4: Bool) -> (number: UInt8, [UInt8], String) {
        let data = random.bytes(size())
        switch Int.random(in: 0..<12, using: &random) {
        case 0...1:
            let header = random.bytes(12) + [0x50, 0x10] + random.bytes(6)
            return (6, packet.checksummed(header + data, 6, at: 16), "tcp")
        case 2...4:
            var udp = packet.checksummed(random.bytes(4) + word(8 + data.count) + [0, 0] + data, 17, at: 6)
            guard random.chance(15) else { return (17, udp, "udp") }
            put(0, 6, &udp)
            return (17, udp, "udp-zero")
        case 5...6:
            let types: [UInt8] = isIPv4 ? [8, 0] : [128, 129]
            var message = [random.pick(types), 0, 0, 0] + random.bytes(4) + data
            let pseudo = isIPv4 ? [] : packet.pseudoHeader(message.count, 58)
            put(~slowSum(pseudo + message), 2, &message)
            return (isIPv4 ? 1 : 58, message, "echo")
        case 7: return (33, packet.checksummed(random.bytes(12) + data, 33, at: 6), "dccp")
        case 8: return (136, packet.checksummed(random.bytes(4) + [0, 0, 0, 0] + data, 136, at: 6), "udplite")
        case 9: return (132, random.bytes(12) + data, "sctp")
        default: return (random.pick([4, 41, 47, 50, 51, 59, 89, 103, 112, 200, 255]), data, "other")
        }
    }

    /// At most one thing about a packet is out of the ordinary, so that each difference has one reason.
    private enum Twist: CaseIterable {
        case none, lastHop, address, options, fragments, lastHopFragments, error, outside
    }

    private mutating func twist() -> Twist { random.chance(40) ? .none : random.pick(Twist.allCases) }

    private mutating func outbound() -> DifferentialCase {
        let (mapping, twist) = (random.pick(mappings), twist())
        var packet = V4(
            source: mapping.ipv4, destination: PropertyTests.remote(&random),
            tos: random.chance(30) ? random.pick([0xb8, 1, 2, 3, 255]) : 0, identification: serial & 0xffff,
            dontFragment: random.chance(50), ttl: random.pick([2, 3, 64, 128, 255]))
        switch twist {
        case .error: return outboundError(packet, mapping)
        case .lastHop: packet.ttl = random.pick([0, 1])
        case .lastHopFragments: packet.ttl = 1
        case .address: packet.destination = special()
        case .options:
            packet.options = random.pick([
                [1, 1, 1, 1], [0x94, 4, 0, 0], octets("830708c633640700"), octets("830704c633640700"),
                octets("890704c633640700"), octets("0707040000000000"), [1, 1, 1, 0],
            ])
        default: break
        }
        let (number, payload, kind) = content(packet, isIPv4: true)
        (packet.number, packet.payload) = (number, payload)
        guard twist == .fragments || twist == .lastHopFragments, payload.count > 24 else {
            return .init(kind: "4-\(twist)-\(kind)", packets: [packet.octets])
        }
        // A first fragment holds TCP's checksum.
        let cut = Int.random(in: (number == 6 ? 3 : 1)...(payload.count - 1) / 8, using: &random) * 8
        var pieces = [0..<cut, cut..<payload.count].map { packet.piece(payload, $0) }
        if random.chance(50) { pieces.reverse() }
        return .init(kind: "4-\(twist)-\(kind)", packets: pieces)
    }

    /// An ICMP error of any type and code about a packet that came through the translator.
    private mutating func outboundError(_ outer: V4, _ mapping: Mapping) -> DifferentialCase {
        var outer = outer
        outer.dontFragment = false
        var inner = V4(
            source: random.chance(90) ? outer.destination : PropertyTests.remote(&random), destination: mapping.ipv4,
            tos: UInt8(truncatingIfNeeded: random.next()), dontFragment: random.chance(50),
            ttl: UInt8.random(in: 1...255, using: &random))
        let (number, payload, kind) = content(inner, isIPv4: true)
        (inner.number, inner.payload) = (number, payload)
        if random.chance(10) { (inner.more, inner.dontFragment) = (true, false) }
        let quote = Array(inner.octets.prefix(random.chance(10) ? 28 : Int.random(in: 28...548, using: &random)))
        let type: UInt8 = random.pick([3, 3, 3, 11, 12, 4, 5])
        let code = type == 3 ? UInt8.random(in: 0...16, using: &random) : UInt8.random(in: 0...3, using: &random)
        var second: [UInt8] = [0, 0, 0, 0]
        if type == 3, code == 4 {
            second = [0, 0] + word(random.pick([0, 68, 576, 1260, 1280, 1400, 1480, 1500, 9000]))
        }
        if type == 12 { second[0] = UInt8.random(in: 0...24, using: &random) }
        if type == 5 { second = [192, 0, 2, 1] }
        return .init(kind: "4-error\(type).\(code)-\(kind)", packets: [outer.icmp(type, code, second, quote).octets])
    }

    private mutating func inbound() -> DifferentialCase {
        let (mapping, twist) = (random.pick(mappings), twist())
        var packet = V6(
            source: mapping.pref64.embed(PropertyTests.remote(&random)), destination: mapping.ipv6,
            trafficClass: random.chance(30) ? random.pick([0xb8, 1, 2, 3, 255]) : 0,
            flowLabel: random.chance(20) ? Int(random.next() & 0xfffff) : 0,
            hopLimit: random.pick([2, 3, 64, 128, 255]))
        switch twist {
        case .error: return inboundError(packet, mapping)
        case .lastHop: packet.hopLimit = random.pick([0, 1])
        case .lastHopFragments: packet.hopLimit = 1
        case .address: packet.source = mapping.pref64.embed(special())
        case .outside: packet.source = .text("2001:db8:ffff::9")
        default: break
        }
        let (number, payload, kind) = content(packet, isIPv4: false)
        (packet.next, packet.payload) = (number, payload)
        let identification = random.chance(50) ? serial & 0xffff : Int(random.next() & 0xffff_ffff)
        if twist == .fragments || twist == .lastHopFragments, payload.count > 24, random.chance(80) {
            let cut = Int.random(in: 1...(payload.count - 1) / 8, using: &random) * 8
            var pieces = [0..<cut, cut..<payload.count].map {
                packet.piece(payload, $0, identification: identification)
            }
            if random.chance(50) { pieces.reverse() }
            return .init(kind: "6-\(twist)-\(kind)", packets: pieces)
        }
        if twist == .fragments {
            packet.extensions = V6.fragment(number, identification: identification)
            packet.next = 44
        }
        if twist == .options {
            let (next, header): (UInt8, [UInt8]) = random.pick([
                (0, [packet.next, 0, 1, 4, 0, 0, 0, 0]), (60, [packet.next, 0, 1, 4, 0, 0, 0, 0]),
                (43, [packet.next, 0, 0, 0, 0, 0, 0, 0]), (43, [packet.next, 0, 4, 1, 0, 0, 0, 0]),
                (0, [60, 0, 1, 4, 0, 0, 0, 0, packet.next, 0, 1, 4, 0, 0, 0, 0]),
            ])
            packet.extensions = header
            packet.next = next
        }
        return .init(kind: "6-\(twist)-\(kind)", packets: [packet.octets])
    }

    /// An ICMPv6 error of any type and code about a packet that left through the translator.
    private mutating func inboundError(_ outer: V6, _ mapping: Mapping) -> DifferentialCase {
        var outer = outer
        if random.chance(25) {
            outer.source = random.pick([.text("2001:db8:ffff::9"), .text("2001:db8:ffff::a"), .text("fe80::1")])
        } else if random.chance(20) {
            outer.source = mapping.pref64.embed(special())
        }
        var inner = V6(
            source: random.chance(95) ? mapping.ipv6 : .text("2001:db8:ffff::b"),
            destination: mapping.pref64.embed(PropertyTests.remote(&random)),
            trafficClass: UInt8(truncatingIfNeeded: random.next()), hopLimit: UInt8.random(in: 1...255, using: &random))
        let (number, payload, kind) = content(inner, isIPv4: false)
        (inner.next, inner.payload) = (number, payload)
        if random.chance(10) {
            inner.extensions = V6.fragment(number, more: true, identification: serial)
            inner.next = 44
        }
        let quote = Array(inner.octets.prefix(Int.random(in: 48...1232, using: &random)))
        let type: UInt8 = random.pick([1, 1, 2, 2, 3, 4, 4, 100])
        let code = type == 2 ? 0 : UInt8.random(in: 0...(type == 1 ? 7 : 2), using: &random)
        var second = 0
        if type == 2 { second = random.pick([0, 576, 1279, 1280, 1300, 1400, 1480, 1500, 9000, 0xffff_ffff]) }
        if type == 4 { second = Int.random(in: 0...44, using: &random) }
        return .init(
            kind: "6-error\(type).\(code)-\(kind)", packets: [outer.icmp(type, code, long(second), quote).octets])
    }
}
