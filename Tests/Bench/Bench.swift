import ClatBase
import ClatTranslator
import Glibc

// Nanoseconds and heap allocations per packet of the translator alone: no system call, payload not touched.
// make bench runs it; docs/performance.md has the numbers.

/// Takes frames and does nothing with them.
private struct Sink: ~Copyable, PacketSink {
    var frames = 0

    mutating func send(_ frame: RawSpan) { frames += 1 }
}

@main
enum Bench {
    static func main() {
        guard let clat = IPv6Address("2001:db8:1:2:a1b2:c3d4:25a6:718"), let plain = IPv6Address("2001:db8:1:2::5"),
            let long = PREF64("2001:db8:122:344::/64")
        else { return }
        let own = IPv4Address(192, 0, 0, 1)
        let cases = [
            ("64:ff9b::/96, checksum-neutral", Mapping(ipv4: own, ipv6: clat, pref64: .wellKnown)),
            ("64:ff9b::/96", Mapping(ipv4: own, ipv6: plain, pref64: .wellKnown)),
            ("2001:db8:122:344::/64", Mapping(ipv4: own, ipv6: plain, pref64: long)),
        ]
        for (name, mapping) in cases {
            let remote = mapping.pref64.embed(IPv4Address(198, 51, 100, 1))
            for number in [UInt8(6), 17, 1] {
                let ipv4 = packetIPv4(number, mapping.ipv4)
                let ipv6 = packetIPv6(number == 1 ? 58 : number, from: remote, to: mapping.ipv6)
                let (out, inbound) = (measure(ipv4, mapping), measure(ipv6, mapping))
                let transport = number == 6 ? "TCP " : number == 17 ? "UDP " : "echo"
                print("\(transport) \(name): out \(out), in \(inbound)")
            }
        }
    }

    static func packetIPv4(_ number: UInt8, _ source: IPv4Address) -> [UInt8] {
        var header: [UInt8] = [0x45, 0, 0, 60, 0, 1, 0x40, 0, 64, number, 0, 0] + source.bytes + [198, 51, 100, 1]
        var sum = stride(from: 0, to: 20, by: 2).reduce(0) { $0 + UInt32(header[$1]) << 8 + UInt32(header[$1 + 1]) }
        sum = (sum & 0xffff) + (sum >> 16)
        header[10] = UInt8(~sum >> 8 & 0xff)
        header[11] = UInt8(~sum & 0xff)
        return header + payload(number)
    }

    static func packetIPv6(_ number: UInt8, from source: IPv6Address, to destination: IPv6Address) -> [UInt8] {
        [0x60, 0, 0, 0, 0, 40, number, 64] + source.bytes + destination.bytes + payload(number)
    }

    static func payload(_ number: UInt8) -> [UInt8] {
        [number == 1 ? 8 : number == 58 ? 128 : 0x9c, 0, 0, 0x35, 0, 40, 0x12, 0x34] + [UInt8](repeating: 0x50, count: 32)
    }

    /// The best of many short rounds, less what a round costs without translation. Each starts from the packet as it was,
    /// as in a TUN's read buffer.
    static func measure(_ packet: [UInt8], _ mapping: Mapping) -> String {
        var translator = Translator(
            TranslatorConfiguration(mappings: [mapping], ipv6MTU: 1500), counters: TranslatorCounters())
        let original = [UInt8](repeating: 0, count: 10) + packet
        var memory = [UInt8](repeating: 0, count: Translator.headroom) + original
        var sink = Sink()
        let (rounds, packets) = (300, 20_000)
        var (best, baseline) = (Double.infinity, Double.infinity)
        original.withUnsafeBytes { original in
            var span = memory.mutableSpan
            var bytes = span.mutableBytes
            let frame = Translator.headroom..<bytes.byteCount
            for _ in 0..<rounds {
                baseline = min(baseline, time { for _ in 0..<packets { restore(&bytes, original) } })
                best = min(
                    best,
                    time {
                        for _ in 0..<packets {
                            restore(&bytes, original)
                            translator.translate(&bytes, frame: frame, now: 0, into: &sink)
                        }
                    })
            }
        }
        guard sink.frames == rounds * packets else { return "refused" }
        let tenths = Int(((best - baseline) / Double(packets) * 10).rounded())
        return "\(tenths / 10).\(tenths % 10) ns"
    }

    @inline(never)
    static func restore(_ bytes: inout MutableRawSpan, _ original: UnsafeRawBufferPointer) {
        bytes.withUnsafeMutableBytes { target in
            UnsafeMutableRawBufferPointer(rebasing: target[Translator.headroom...]).copyMemory(from: original)
        }
    }

    static func time(_ body: () -> Void) -> Double {
        var from = timespec()
        var to = timespec()
        clock_gettime(CLOCK_MONOTONIC, &from)
        body()
        clock_gettime(CLOCK_MONOTONIC, &to)
        return Double(to.tv_sec - from.tv_sec) * 1e9 + Double(to.tv_nsec - from.tv_nsec)
    }
}
