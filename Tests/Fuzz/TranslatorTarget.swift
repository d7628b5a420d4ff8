import ClatBase

@testable import ClatTranslator

// The translator, with whatever the TUN may bring. An input is an octet of configuration and then frames: three octets of length, the top
// bit of which asks for right checksums, a virtio_net_hdr, and a packet. Several frames let fragments meet.

/// Traps unless what is sent is an IP packet with the length that its header says, behind a virtio_net_hdr.
private struct Sink: ~Copyable, PacketSink {
    mutating func send(_ frame: RawSpan) {
        precondition(frame.byteCount >= 30)
        let packet = frame.extracting(10..<frame.byteCount)
        if packet.load8(0) >> 4 == 4 {
            precondition(packet.load8(0) == 0x45 && Int(packet.load16(2)) == packet.byteCount)
            precondition(Checksum.sum(packet.extracting(0..<20)) == 0xffff)
            precondition(packet.load8(8) > 0)
        } else {
            precondition(packet.load8(0) >> 4 == 6 && Int(packet.load16(4)) + 40 == packet.byteCount)
            precondition(packet.load8(7) > 0)
        }
    }
}

private let prefixes = [
    "2001:db8::/32", "2001:db8:100::/40", "2001:db8:122::/48", "2001:db8:122:300::/56", "2001:db8:122:344::/64",
    "2001:db8:122:344::/96", "64:ff9b::/96",
]

private func configuration(_ selector: UInt8) -> TranslatorConfiguration {
    guard let ipv6 = IPv6Address("2001:db8:1:2:a1b2:c3d4:25a6:718"),
        let pref64 = PREF64(prefixes[Int(selector) % prefixes.count])
    else { preconditionFailure() }
    let mapping = Mapping(ipv4: IPv4Address(192, 0, 0, 1), ipv6: ipv6, pref64: pref64)
    var result = TranslatorConfiguration(mappings: [mapping], ipv6MTU: selector & 0x80 == 0 ? 1500 : 1280)
    if selector & 0x40 != 0 { result.ipv4MTU = 700 }
    result.strictHopLimit = selector & 0x20 != 0
    result.strictWellKnownPrefix = selector & 0x20 != 0
    result.errorsPerSecond = 1_000_000
    return result
}

/// Makes the IPv4 header checksum and that of an ICMP message right, so that inputs get further in.
private func repair(_ bytes: inout MutableRawSpan, _ start: Int) {
    let count = bytes.byteCount - start
    guard count >= 20 else { return }
    if bytes.bytes.load8(start) >> 4 == 4 {
        let header = max(20, min(count, Int(bytes.bytes.load8(start) & 15) * 4))
        bytes.store16(0, start + 10)
        bytes.store16(~Checksum.sum(bytes.bytes.extracting(start..<start + header)), start + 10)
        let end = start + min(count, Int(bytes.bytes.load16(start + 2)))
        guard bytes.bytes.load8(start + 9) == 1, end >= start + header + 8 else { return }
        bytes.store16(0, start + header + 2)
        bytes.store16(~Checksum.sum(bytes.bytes.extracting(start + header..<end)), start + header + 2)
    } else if count >= 48, bytes.bytes.load8(start + 6) == 58 {
        let end = start + min(count, 40 + Int(bytes.bytes.load16(start + 4)))
        guard end >= start + 44 else { return }
        bytes.store16(0, start + 42)
        let sum =
            UInt64(Checksum.sum(bytes.bytes.extracting(start + 8..<end)))
            + Checksum.pseudoHeader(length: end - start - 40, nextHeader: 58)
        bytes.store16(~Checksum.fold(sum), start + 42)
    }
}

extension Target {
    /// Frames, one after the other, through one translator.
    static let translator = Target { input in
        guard let selector = input.first else { return }
        var translator = Translator(configuration(selector), counters: TranslatorCounters())
        var sink = Sink()
        var rest = input.dropFirst()
        // From a second after boot: before, the limit of errors lets none through.
        var now: UInt64 = 1_000_000_000
        while let first = rest.popFirst(), let high = rest.popFirst(), let low = rest.popFirst() {
            // A super-packet needs 17 bits.
            let length = Int(first & 1) << 16 | Int(high) << 8 | Int(low)
            let wantsRepair = first & 0x80 != 0
            var memory = [UInt8](repeating: 0xa5, count: Translator.headroom) + rest.prefix(length)
            rest = rest.dropFirst(length)
            var span = memory.mutableSpan
            var bytes = span.mutableBytes
            if wantsRepair { repair(&bytes, Translator.headroom + 10) }
            translator.translate(&bytes, frame: Translator.headroom..<bytes.byteCount, now: now, into: &sink)
            now += 1_000_000_000
        }
    }
}
