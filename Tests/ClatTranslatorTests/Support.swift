import ClatBase
import Testing

@testable import ClatTranslator

/// Keeps what it is sent, header by header.
struct Recorder: ~Copyable, PacketSink {
    var frames: [[UInt8]] = []

    mutating func send(_ frame: RawSpan) {
        frames.append(frame.withUnsafeBytes { Array($0) })
    }
}

/// A virtio_net_hdr as a test writes it.
struct Virtio: Equatable {
    var flags: UInt8 = 0
    var gsoType: UInt8 = 0
    var headerLength: UInt16 = 0
    var gsoSize: UInt16 = 0
    var checksumStart: UInt16 = 0
    var checksumOffset: UInt16 = 0

    /// The ten octets, in the machine's byte order.
    var bytes: [UInt8] {
        [flags, gsoType]
            + [headerLength, gsoSize, checksumStart, checksumOffset].flatMap { word in
                withUnsafeBytes(of: word) { Array($0) }
            }
    }

    init() {}

    init(partialAt start: UInt16, offset: UInt16) {
        flags = 1
        checksumStart = start
        checksumOffset = offset
    }

    init(_ bytes: some Collection<UInt8>) {
        let bytes = Array(bytes)
        func word(_ offset: Int) -> UInt16 {
            bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: UInt16.self) }
        }
        (flags, gsoType) = (bytes[0], bytes[1])
        (headerLength, gsoSize, checksumStart, checksumOffset) = (word(2), word(4), word(6), word(8))
    }
}

/// A translator with what goes in and what comes out.
struct Bench: ~Copyable {
    let counters = TranslatorCounters()
    var translator: Translator
    var now: UInt64 = 1_000_000_000

    init(_ configuration: TranslatorConfiguration = .standard) {
        translator = Translator(configuration, counters: counters)
        translator.spoil()
    }

    /// Translates one packet in a buffer that is otherwise all 0xa5, exactly as large as needed.
    mutating func frames(_ packet: [UInt8], _ virtio: Virtio = Virtio()) -> [[UInt8]] {
        var memory = [UInt8](repeating: 0xa5, count: Translator.headroom) + virtio.bytes + packet
        var recorder = Recorder()
        var span = memory.mutableSpan
        var bytes = span.mutableBytes
        translator.translate(&bytes, frame: Translator.headroom..<bytes.byteCount, now: now, into: &recorder)
        return recorder.frames
    }

    /// The packets without their virtio_net_hdr.
    mutating func packets(_ packet: [UInt8], _ virtio: Virtio = Virtio()) -> [[UInt8]] {
        frames(packet, virtio).map { Array($0.dropFirst(10)) }
    }

    /// The one packet that comes out, in hexadecimal; a list of all if there is not one.
    mutating func hex(_ packet: [UInt8], _ virtio: Virtio = Virtio()) -> String {
        packets(packet, virtio).map(ClatTranslatorTests.hex).joined(separator: " ")
    }

    /// The reasons counted since the last call.
    var drops: [String: UInt64] { counters.snapshot().drops.filter { $0.value > 0 } }
}

extension Translator {
    /// Fills what it writes to besides the frame's buffer with 0xa5, so that what is left unwritten shows.
    mutating func spoil() {
        errorFrame = Array(repeating: 0xa5, count: errorFrame.count)
        wholePacket = Array(repeating: 0xa5, count: Self.wholePacketSize)
    }
}

/// The CLAT address that most tables use: neutral under the well-known prefix.
extension TranslatorConfiguration {
    static var standard: TranslatorConfiguration { .init(mappings: [.standard], ipv6MTU: 1500) }
}

extension Mapping {
    static let standard = Mapping(
        ipv4: IPv4Address(192, 0, 0, 1), ipv6: IPv6Address.text("2001:db8:1:2:a1b2:c3d4:25a6:718"),
        pref64: .wellKnown)
}

extension IPv6Address {
    /// An address that a test spells rightly.
    static func text(_ text: String) -> IPv6Address {
        guard let address = IPv6Address(text) else { preconditionFailure(text) }
        return address
    }
}

extension PREF64 {
    /// A prefix that a test spells rightly.
    static func text(_ text: String) -> PREF64 {
        guard let prefix = PREF64(text) else { preconditionFailure(text) }
        return prefix
    }
}

/// Lower-case hexadecimal.
func hex(_ bytes: [UInt8]) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}

/// The octets of hexadecimal text; spaces may stand anywhere.
func octets(_ text: String) -> [UInt8] {
    let digits = text.utf8.filter { $0 != UInt8(ascii: " ") && $0 != UInt8(ascii: "\n") }.map { digit -> UInt8 in
        digit <= UInt8(ascii: "9") ? digit - UInt8(ascii: "0") : digit - UInt8(ascii: "a") + 10
    }
    return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}
