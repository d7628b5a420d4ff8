import ClatBase

@testable import ClatTranslator

/// A packet for both data paths.
struct TestPacket {
    var bytes: [UInt8]
    /// The payload of each segment of a super-packet; 0 for none.
    var gsoSize: UInt16 = 0
    /// Whether the kernel path must take it.
    var isPlain: Bool

    /// The same, as the TUN says it.
    var virtio: Virtio {
        var virtio = Virtio()
        if gsoSize > 0 {
            virtio.gsoSize = gsoSize
            let isTCP = bytes[bytes[0] >> 4 == 4 ? 9 : 6] == 6
            virtio.gsoType = isTCP ? (bytes[0] >> 4 == 4 ? 1 : 4) : 5
        }
        return virtio
    }
}

/// A UDP packet from 192.0.0.1 with a right header checksum and whatever UDP checksum.
func udp4(
    _ payload: Int, from source: [UInt8] = [192, 0, 0, 1], to destination: [UInt8] = [198, 51, 100, 1],
    ttl: UInt8 = 64, options: Int = 0, fragment: UInt16 = 0, checksum: UInt16 = 0x1234
) -> [UInt8] {
    let length = UInt16(8 + payload)
    let udp = [0, 7, 0, 7] + words(length, checksum) + zeros(payload)
    return ipv4(source, destination, 17, udp, ttl: ttl, options: options, fragment: fragment)
}

/// An IPv4 packet with a right header checksum.
func ipv4(
    _ source: [UInt8], _ destination: [UInt8], _ number: UInt8, _ payload: [UInt8], ttl: UInt8, options: Int = 0,
    fragment: UInt16 = 0, tos: UInt8 = 0, identification: UInt16 = 0
) -> [UInt8] {
    let total = UInt16(20 + options + payload.count)
    var header =
        [0x45 + UInt8(options / 4), tos] + words(total, identification, fragment) + [ttl, number, 0, 0] + source
        + destination + [UInt8](repeating: 1, count: options)
    header.replaceSubrange(10..<12, with: words(~slowSum(header)))
    return header + payload
}

private func words(_ words: UInt16...) -> [UInt8] { words.flatMap { [UInt8($0 >> 8), UInt8($0 & 0xff)] } }

/// SplitMix64 (Steele, Lea, Flood 2014): a seed gives the same packets for ever.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
        return z ^ z >> 31
    }
}

/// Packets of which about half are plain and the others have one or more things that are not, checksums right in all.
struct RandomPackets {
    private var generator: SeededGenerator
    private let configuration: TranslatorConfiguration

    init(seed: UInt64, configuration: TranslatorConfiguration) {
        generator = SeededGenerator(state: seed)
        self.configuration = configuration
    }

    private mutating func chance(_ oneIn: Int) -> Bool { Int.random(in: 0..<oneIn, using: &generator) == 0 }
    private mutating func octet() -> UInt8 { .random(in: 0 ... .max, using: &generator) }
    private mutating func pick<Value>(_ values: [Value]) -> Value {
        values[Int.random(in: 0..<values.count, using: &generator)]
    }

    /// A remote address; one in eight is of a kind that has a rule of its own.
    private mutating func remote() -> IPv4Address {
        if chance(8) {
            return pick([
                IPv4Address(0, 1, 2, 3), IPv4Address(127, 0, 0, 1), IPv4Address(224, 0, 0, 5),
                IPv4Address(240, 1, 1, 1),
                IPv4Address(255, 255, 255, 255), IPv4Address(169, 254, 9, 9), IPv4Address(192, 0, 0, 1),
                IPv4Address(192, 0, 0, 8), IPv4Address(10, 1, 2, 3), IPv4Address(172, 16, 0, 1),
                IPv4Address(192, 168, 0, 1),
            ])
        }
        return IPv4Address(UInt8.random(in: 11...126, using: &generator), octet(), octet(), octet())
    }

    /// Small, around the limits of 1260, 1280 and 1500 octets, or anything.
    private mutating func payloadLength() -> Int {
        switch Int.random(in: 0..<4, using: &generator) {
        case 0: .random(in: 0...64, using: &generator)
        case 1: pick([1212, 1232, 1240, 1280, 1300, 1360, 1400, 1440, 1460]) + .random(in: -9...9, using: &generator)
        default: .random(in: 0...2400, using: &generator)
        }
    }

    /// A transport message with a right checksum under the sum of a pseudo-header, and whether it is plain.
    private mutating func message(
        _ pseudo: [UInt8], isIPv4: Bool, gsoSize: inout UInt16
    ) -> (number: UInt8, bytes: [UInt8], isPlain: Bool) {
        let data = (0..<payloadLength()).map { _ in octet() }
        let number: UInt8 = pick([6, 6, 6, 17, 17, 17, isIPv4 ? 1 : 58, 47, 132])
        var (bytes, field, isPlain) = ([UInt8](), 0, true)
        switch number {
        case 6:
            let options = 4 * Int.random(in: 0...10, using: &generator)
            bytes = (0..<20).map { _ in octet() } + zeros(options) + data
            bytes[12] = UInt8(5 + options / 4) << 4
            field = 16
            if !data.isEmpty, chance(3) { gsoSize = .random(in: 1...UInt16(data.count), using: &generator) }
        case 17:
            bytes = (0..<4).map { _ in octet() } + words(UInt16(8 + data.count), 0) + data
            field = 6
            if !data.isEmpty, chance(3) { gsoSize = .random(in: 1...UInt16(data.count), using: &generator) }
        case 1, 58:
            let types: [UInt8] = isIPv4 ? [8, 0, 8, 0, 3, 13] : [128, 129, 128, 129, 1, 144]
            let code: UInt8 = chance(8) ? 1 : 0
            bytes = [pick(types), code, 0, 0] + (0..<4).map { _ in octet() } + data
            field = 2
            isPlain = code == 0 && types[0..<2].contains(bytes[0])
        default: return (number, data, false)
        }
        bytes.replaceSubrange(field..<field + 2, with: [0, 0])
        let sum = ~slowSum((number == 1 ? [] : pseudo + words(0, UInt16(bytes.count), 0, UInt16(number))) + bytes)
        bytes.replaceSubrange(field..<field + 2, with: words(number == 17 && sum == 0 ? 0xffff : sum))
        if number == 17, gsoSize == 0, chance(8) {
            bytes.replaceSubrange(6..<8, with: [0, 0])
            isPlain = false
        }
        return (number, bytes, isPlain)
    }

    /// From the host.
    mutating func ipv4() -> TestPacket {
        let mapping = pick(configuration.mappings)
        let (source, destination) = (mapping.ipv4, remote())
        var gsoSize: UInt16 = 0
        let (number, message, isPlainMessage) = message(
            source.bytes + destination.bytes, isIPv4: true, gsoSize: &gsoSize)
        let dontFragment = chance(2)
        let fragment: UInt16 = gsoSize == 0 && chance(12) ? pick([0x2000, 1, 0x2001, 185]) : dontFragment ? 0x4000 : 0
        let ttl = chance(8) ? pick([0, 1, 2]) : octet()
        let options = chance(12) ? 4 * Int.random(in: 1...10, using: &generator) : 0
        let bytes = ClatTranslatorTests.ipv4(
            source.bytes, destination.bytes, number, message, ttl: ttl, options: options, fragment: fragment,
            tos: octet(), identification: .random(in: 0 ... .max, using: &generator))
        let size = wire(message, number, gsoSize) + 40
        let limit = dontFragment || gsoSize > 0 ? configuration.ipv6MTU : configuration.lowestIPv6MTU
        let isPlain =
            isPlainMessage && fragment & 0x3fff == 0 && options == 0 && ttl > configuration.hopLimitDecrement
            && isPublic(destination) && size <= limit
        return TestPacket(bytes: bytes, gsoSize: gsoSize, isPlain: isPlain)
    }

    /// From the uplink.
    mutating func ipv6() -> TestPacket {
        let mapping = pick(configuration.mappings)
        let address = remote()
        var source = mapping.pref64.embed(address)
        if mapping.pref64.length < 96, chance(4) { source.low |= UInt64(octet()) }
        let destination = mapping.ipv6
        var gsoSize: UInt16 = 0
        let (number, message, isPlainMessage) = message(
            source.bytes + destination.bytes, isIPv4: false, gsoSize: &gsoSize)
        let extended = gsoSize == 0 && chance(8)
        let next: UInt8 = extended ? pick([0, 60, 43]) : number
        let payload = extended ? [number, 0] + zeros(6) + message : message
        let hopLimit = chance(8) ? pick([0, 1, 2]) : octet()
        var bytes = ClatTranslatorTests.ipv6("\(source)", "\(destination)", next, payload)
        bytes[0] |= octet() & 15
        bytes.replaceSubrange(1..<4, with: [octet(), octet(), octet()])
        bytes[7] = hopLimit
        let isPlain =
            isPlainMessage && !extended && hopLimit > configuration.hopLimitDecrement && isPublic(address)
            && wire(message, number, gsoSize) + 20 <= configuration.ipv4MTU
        return TestPacket(bytes: bytes, gsoSize: gsoSize, isPlain: isPlain)
    }

    /// UDP from the uplink, plain.
    mutating func plainIPv6(payload: Int) -> [UInt8] {
        let mapping = configuration.mappings[0]
        let source = mapping.pref64.embed(IPv4Address(198, 51, 100, 1))
        let udp = [0, 7, 0, 7] + words(UInt16(8 + payload), 0x1234) + zeros(payload)
        return ClatTranslatorTests.ipv6("\(source)", "\(mapping.ipv6)", 17, udp)
    }

    /// Octets of a message on the wire, or of its segments.
    private func wire(_ message: [UInt8], _ number: UInt8, _ gsoSize: UInt16) -> Int {
        gsoSize == 0 ? message.count : Int(gsoSize) + (number == 6 ? Int(message[12] >> 4) * 4 : 8)
    }

    /// No rule refuses it, whatever the switches.
    private func isPublic(_ address: IPv4Address) -> Bool {
        (11..<127).contains(address.rawValue >> 24)
    }
}
