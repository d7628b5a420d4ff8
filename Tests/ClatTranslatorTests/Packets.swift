import ClatBase

@testable import ClatTranslator

// Packets as tests build them and a slow, independent way to verify them: arrays, one word at a time, from the definitions.

/// The Internet checksum's sum (RFC 1071) of octets, the last one padded with zero.
func slowSum(_ bytes: [UInt8]) -> UInt16 {
    var sum: UInt32 = 0
    var index = 0
    while index < bytes.count {
        sum += UInt32(bytes[index]) << 8
        if index + 1 < bytes.count { sum += UInt32(bytes[index + 1]) }
        if sum > 0xffff { sum -= 0xffff }
        index += 2
    }
    return UInt16(sum)
}

func word(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 0xff), UInt8(value & 0xff)] }
func word(_ bytes: [UInt8], _ offset: Int) -> Int { Int(bytes[offset]) << 8 | Int(bytes[offset + 1]) }
func long(_ value: Int) -> [UInt8] { word(value >> 16) + word(value & 0xffff) }

/// Puts 16 bits into octets.
func put(_ value: UInt16, _ offset: Int, _ bytes: inout [UInt8]) {
    bytes[offset] = UInt8(value >> 8)
    bytes[offset + 1] = UInt8(value & 0xff)
}

/// What a packet's transport checksum is computed over.
protocol IPPacket {
    func pseudoHeader(_ length: Int, _ number: UInt8) -> [UInt8]
    var octets: [UInt8] { get }
}

/// An IPv4 packet. The checksum is right unless a test damages it.
struct V4: IPPacket {
    var source = IPv4Address(192, 0, 0, 1)
    var destination = IPv4Address(198, 51, 100, 1)
    var tos: UInt8 = 0
    var identification = 0x1234
    var dontFragment = false
    var more = false
    var offset = 0
    var ttl: UInt8 = 64
    var number: UInt8 = 17
    var options: [UInt8] = []
    var payload: [UInt8] = []
    /// Total length if it is to differ.
    var totalLength: Int?

    func pseudoHeader(_ length: Int, _ number: UInt8) -> [UInt8] {
        source.bytes + destination.bytes + [0, number] + word(length)
    }

    var octets: [UInt8] {
        var header: [UInt8] = [0x45 + UInt8(options.count / 4), tos]
        header += word(totalLength ?? 20 + options.count + payload.count) + word(identification)
        header += word((dontFragment ? 0x4000 : 0) | (more ? 0x2000 : 0) | offset / 8)
        header += [ttl, number, 0, 0] + source.bytes + destination.bytes + options
        put(~slowSum(header), 10, &header)
        return header + payload
    }
}

/// An IPv6 packet; `extensions` stand before the payload.
struct V6: IPPacket {
    var source = IPv6Address.text("64:ff9b::c633:6401")
    var destination = Mapping.standard.ipv6
    var trafficClass: UInt8 = 0
    var flowLabel = 0
    var hopLimit: UInt8 = 64
    var next: UInt8 = 17
    var extensions: [UInt8] = []
    var payload: [UInt8] = []
    var payloadLength: Int?

    func pseudoHeader(_ length: Int, _ number: UInt8) -> [UInt8] {
        source.bytes + destination.bytes + long(length) + [0, 0, 0, number]
    }

    var octets: [UInt8] {
        long(6 << 28 | Int(trafficClass) << 20 | flowLabel)
            + word(payloadLength ?? extensions.count + payload.count) + [next, hopLimit] + source.bytes
            + destination.bytes + extensions + payload
    }

    /// A Fragment header.
    static func fragment(_ next: UInt8, offset: Int = 0, more: Bool = false, identification: Int) -> [UInt8] {
        [next, 0] + word(offset | (more ? 1 : 0)) + long(identification)
    }
}

extension IPPacket {
    /// The payload with its checksum field filled in: over the pseudo-header of this packet, or not inverted over that alone.
    func checksummed(_ payload: [UInt8], _ number: UInt8, at offset: Int, partial: Bool = false) -> [UInt8] {
        var payload = payload
        put(0, offset, &payload)
        let pseudo = pseudoHeader(payload.count, number)
        var sum = slowSum(partial ? pseudo : pseudo + payload)
        if !partial { sum = ~sum }
        put(sum == 0 && !partial ? 0xffff : sum, offset, &payload)
        return payload
    }

    func udp(_ data: [UInt8], partial: Bool = false) -> [UInt8] {
        checksummed(word(40000) + word(53) + word(8 + data.count) + [0, 0] + data, 17, at: 6, partial: partial)
    }

    func tcp(_ data: [UInt8], partial: Bool = false) -> [UInt8] {
        checksummed(
            word(40000) + word(443) + long(1) + long(2) + [0x50, 0x18, 1, 0, 0, 0, 0, 0] + data, 6, at: 16,
            partial: partial)
    }
}

extension V4 {
    /// With a payload made for it.
    func with(_ payload: (V4) -> [UInt8]) -> V4 {
        var copy = self
        copy.payload = payload(self)
        return copy
    }

    /// An ICMP message: type, code, second word, and the rest.
    func icmp(_ type: UInt8, _ code: UInt8, _ second: [UInt8] = [0, 0, 0, 0], _ rest: [UInt8] = []) -> V4 {
        var copy = self
        copy.number = 1
        copy.payload = [type, code, 0, 0] + second + rest
        put(~slowSum(copy.payload), 2, &copy.payload)
        return copy
    }
}

extension V6 {
    func with(_ payload: (V6) -> [UInt8]) -> V6 {
        var copy = self
        copy.payload = payload(self)
        return copy
    }

    func icmp(_ type: UInt8, _ code: UInt8, _ second: [UInt8] = [0, 0, 0, 0], _ rest: [UInt8] = []) -> V6 {
        var copy = self
        if copy.extensions.isEmpty { copy.next = 58 }
        copy.payload = [type, code, 0, 0] + second + rest
        put(~slowSum(pseudoHeader(copy.payload.count, 58) + copy.payload), 2, &copy.payload)
        return copy
    }
}

/// Octets that differ from each other.
func pattern(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ 3) } }

// MARK: - Verifying

/// Looks at a packet as its receiver does, and at its virtio_net_hdr as the kernel does; says what is wrong, if anything.
/// Transport checksums only if asked to, but those of ICMP errors, which are all the translator's own.
func fault(_ frame: [UInt8], transport: Bool = true) -> String? {
    guard frame.count >= 30 else { return "a frame of \(frame.count) octets" }
    let virtio = Virtio(frame.prefix(10))
    let packet = Array(frame.dropFirst(10))
    var number: UInt8
    var start: Int
    var isFirst = true
    var isWhole = true
    let pseudo: (Int, UInt8) -> [UInt8]
    if packet[0] >> 4 == 4 {
        guard packet[0] == 0x45 else { return "IPv4 options" }
        guard word(packet, 2) == packet.count else { return "IPv4 total length \(word(packet, 2)) of \(packet.count)" }
        guard slowSum(Array(packet[0..<20])) == 0xffff else { return "IPv4 header checksum" }
        let field = word(packet, 6)
        (number, start) = (packet[9], 20)
        isFirst = field & 0x1fff == 0
        isWhole = field & 0x3fff == 0
        if field & 0x2000 != 0, (packet.count - 20) % 8 != 0 { return "fragment length" }
        guard packet[8] > 0 else { return "TTL 0" }
        pseudo = { Array(packet[12..<20]) + [0, $1] + word($0) }
    } else {
        guard packet[0] >> 4 == 6, packet.count >= 40 else { return "no IP version" }
        guard word(packet, 4) + 40 == packet.count else {
            return "IPv6 payload length \(word(packet, 4)) of \(packet.count)"
        }
        (number, start) = (packet[6], 40)
        if number == 44 {
            guard packet.count >= 48, packet[41] == 0 else { return "Fragment header" }
            let field = word(packet, 42)
            (number, start) = (packet[40], 48)
            isFirst = field & 0xfff8 == 0
            isWhole = false
            guard field & 0xfff9 != 0 else { return "atomic fragment" }
            if field & 1 != 0, (packet.count - 48) % 8 != 0 { return "fragment length" }
        }
        guard packet[7] > 0 else { return "hop limit 0" }
        pseudo = { Array(packet[8..<40]) + long($0) + [0, 0, 0, $1] }
    }
    if virtio.gsoType != 0 {
        let expected: [UInt8] = number == 17 ? [5] : packet[0] >> 4 == 4 ? [1, 0x81] : [4, 0x84]
        guard expected.contains(virtio.gsoType), virtio.gsoSize > 0 else { return "gso_type \(virtio.gsoType)" }
    }
    let payload = Array(packet[start...])
    let field = [6: 16, 17: 6, 136: 6, 33: 6][number]
    let isError =
        isWhole
        && (number == 1 ? [3, 4, 5, 11, 12].contains(payload.first) : number == 58 && payload.first ?? 128 < 128)
    guard transport || isError else { return nil }
    if virtio.flags & 1 != 0 {
        guard isWhole, Int(virtio.checksumStart) == start, Int(virtio.checksumOffset) == field else {
            return "csum_start \(virtio.checksumStart) csum_offset \(virtio.checksumOffset) of protocol \(number)"
        }
        guard let field, slowSum(pseudo(payload.count, number)) == word(payload, field) else {
            return "partial checksum"
        }
        return nil
    }
    guard isWhole else {
        return isFirst && number == 17 && word(payload, 6) == 0 && start == 48 ? "UDP checksum zero" : nil
    }
    switch number {
    case 6, 33: if slowSum(pseudo(payload.count, number) + payload) != 0xffff { return "checksum of \(number)" }
    case 17:
        let length = word(payload, 4)
        guard word(payload, 6) != 0 else { return "UDP checksum zero" }
        if slowSum(pseudo(length, number) + payload.prefix(length)) != 0xffff { return "UDP checksum" }
    case 136:
        var coverage = word(payload, 4)
        if coverage == 0 { coverage = payload.count }
        if slowSum(pseudo(payload.count, number) + payload.prefix(coverage)) != 0xffff { return "UDP-Lite checksum" }
    case 1: if slowSum(payload) != 0xffff { return "ICMP checksum" }
    case 58: if slowSum(pseudo(payload.count, number) + payload) != 0xffff { return "ICMPv6 checksum" }
    default: break
    }
    return nil
}

/// The packet whose fragments these are, in whatever order; nil where something is missing, doubled or contradictory.
func reassembled(_ fragments: [[UInt8]]) -> [UInt8]? {
    guard let first = fragments.first else { return nil }
    let isIPv4 = first[0] >> 4 == 4
    if fragments.count == 1, isIPv4 ? word(first, 6) & 0x3fff == 0 : first[6] != 44 { return first }
    var header: [UInt8]?
    var payload: [UInt8] = []
    var isComplete = false
    func place(_ fragment: [UInt8]) -> Int { isIPv4 ? (word(fragment, 6) & 0x1fff) * 8 : word(fragment, 42) & 0xfff8 }
    for fragment in fragments.sorted(by: { place($0) < place($1) }) {
        guard isIPv4 || fragment[6] == 44, place(fragment) == payload.count, !isComplete else { return nil }
        isComplete = isIPv4 ? word(fragment, 6) & 0x2000 == 0 : fragment[43] & 1 == 0
        // Without lengths, flags, offsets and what is computed over them; IPv6's next header is the Fragment header's.
        var own = Array(fragment.prefix(isIPv4 ? 20 : 40))
        for offset in isIPv4 ? [2, 3, 6, 7, 10, 11] : [4, 5] { own[offset] = 0 }
        if !isIPv4 { own = own[0..<6] + [fragment[40]] + own[7...] + fragment[44..<48] }
        guard header == nil || header == own else { return nil }
        header = own
        payload += fragment.dropFirst(isIPv4 ? 20 : 48)
    }
    guard var header, isComplete else { return nil }
    header = Array(header.prefix(isIPv4 ? 20 : 40))
    put(UInt16((isIPv4 ? 20 : 0) + payload.count), isIPv4 ? 2 : 4, &header)
    if isIPv4 { put(~slowSum(header), 10, &header) }
    return header + payload
}
