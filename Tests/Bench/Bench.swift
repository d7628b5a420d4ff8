import CLinux
import ClatBase
import ClatTranslator
import Glibc

// What the translator alone costs: nanoseconds and heap allocations per packet, without system calls and without touching
// the payload. The allocations are counted by the C library (mtrace(3)), in a second run of this program under its debug
// library. With arguments, this is one end of the traffic of `bench.py`.

/// Takes frames and does nothing with them.
private struct Sink: ~Copyable, PacketSink {
    var frames = 0

    mutating func send(_ frame: RawSpan) { frames += 1 }
}

@main
enum Bench {
    static func main() {
        if let trace = getenv("MALLOC_TRACE") { return countAllocations(String(cString: trace)) }
        if CommandLine.arguments.count > 1 { exit(traffic(Array(CommandLine.arguments.dropFirst()))) }
        for (name, packet, mapping) in cases() { print("\(name): \(measure(packet, mapping))") }
        // Nobody else's, though others may write where it is.
        var trace = Array("/tmp/translator-bench.XXXXXX".utf8CString)
        let file = mkstemp(&trace)
        guard file >= 0 else { return perror("mkstemp") }
        close(file)
        setenv("MALLOC_TRACE", trace, 1)
        setenv("LD_PRELOAD", "libc_malloc_debug.so.0", 1)
        var arguments: [UnsafeMutablePointer<CChar>?] = [strdup("translator-bench"), nil]
        fflush(nil)
        execv("/proc/self/exe", &arguments)
        perror("execv")
    }

    /// Serves, or measures and prints the figures on one line. The exit status.
    static func traffic(_ arguments: [String]) -> CInt {
        do throws(SystemError) {
            if arguments.count == 2, arguments[0] == "serve", let port = UInt16(arguments[1]) {
                try Server.run(port: port)
            }
            guard [4, 5].contains(arguments.count), let seconds = Double(arguments[3]), seconds > 0,
                let flows = arguments.count == 5 ? Int(arguments[4]) : 1, flows > 0
            else {
                printError(
                    """
                    usage: translator-bench [serve PORT | udp-up ADDRESS PORT SECONDS [FLOWS] | udp-down ... | udp-rr ... | tcp-rr ...]
                    udp-up and udp-down print datagrams a second, of all flows, with less than 1 % lost and in a flood; \
                    udp-rr and tcp-rr print microseconds.
                    """)
                return EX_USAGE
            }
            let client = try Client(address: arguments[1], port: arguments[2], flows: flows)
            switch arguments[0] {
            case "udp-up", "udp-down":
                let result = try client.capacity(seconds: seconds, down: arguments[0] == "udp-down")
                print(result.best, result.flood)
            case "udp-rr": print(try client.datagramRoundTrip(seconds: seconds))
            case "tcp-rr": print(try client.octetRoundTrip(seconds: seconds))
            default: return EX_USAGE
            }
            return 0
        } catch {
            printError("translator-bench: \(error)")
            return 1
        }
    }

    /// TCP, UDP and echo, both ways, for the kinds of mapping that differ in how checksums are adapted.
    static func cases() -> [(name: String, packet: [UInt8], mapping: Mapping)] {
        guard let clat = IPv6Address("2001:db8:1:2:a1b2:c3d4:25a6:718"), let plain = IPv6Address("2001:db8:1:2::5"),
            let long = PREF64("2001:db8:122:344::/64")
        else { return [] }
        let own = IPv4Address(192, 0, 0, 1)
        let mappings = [
            ("/96, checksum-neutral", Mapping(ipv4: own, ipv6: clat, pref64: .wellKnown)),
            ("/96", Mapping(ipv4: own, ipv6: plain, pref64: .wellKnown)),
            ("/64", Mapping(ipv4: own, ipv6: plain, pref64: long)),
        ]
        return mappings.flatMap { name, mapping in
            let remote = mapping.pref64.embed(IPv4Address(198, 51, 100, 1))
            return [("TCP", UInt8(6), UInt8(6)), ("UDP", 17, 17), ("echo", 1, 58)].flatMap { transport, ipv4, ipv6 in
                [
                    ("\(transport) out, \(name)", packetIPv4(ipv4, mapping.ipv4), mapping),
                    ("\(transport) in, \(name)", packetIPv6(ipv6, from: remote, to: mapping.ipv6), mapping),
                ]
            }
        }
    }

    /// What is not measured in time but must not allocate either: fragments cut and put together, an ICMP error.
    static func slowCases() -> [(name: String, packets: [[UInt8]], mapping: Mapping)] {
        guard let mapping = cases().first?.mapping else { return [] }
        let source = mapping.ipv4
        let echo = payload(1)
        return [
            ("UDP of 4000 octets out", [packetIPv4(17, source, [0x9c, 0x40, 0, 53, 15, 160, 1, 2], 4000)], mapping),
            (
                "fragmented echo out",
                [
                    packetIPv4(1, source, Array(echo.prefix(16)), 16, fragment: 0x2000),
                    packetIPv4(1, source, Array(echo.suffix(24)), 24, fragment: 2),
                ], mapping
            ),
            ("TTL that runs out", [packetIPv4(17, source, echo, 40, ttl: 1)], mapping),
            ("ICMPv6 error in", [timeExceeded(to: mapping.ipv6)], mapping),
        ]
    }

    /// A Time Exceeded from a native router about a packet of ours; the checksum is that of these addresses.
    static func timeExceeded(to own: IPv6Address) -> [UInt8] {
        let router: [UInt8] = [0x20, 0x01, 0x0d, 0xb8, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
        let remote: [UInt8] = [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, 198, 51, 100, 1]
        let outer: [UInt8] = [0x60, 0, 0, 0, 0, 88, 58, 62] + router + own.bytes + [3, 0, 0x9d, 0xc1, 0, 0, 0, 0]
        let inner: [UInt8] = [0x60, 0, 0, 0, 0, 40, 17, 1] + own.bytes + remote
        return outer + inner + [0x9c, 0x40, 0x82, 0x9a, 0, 0x28, 0xf6, 0x8c] + [UInt8](repeating: 0, count: 32)
    }

    /// Translates each case a thousand times with the C library writing a line for each allocation.
    static func countAllocations(_ trace: String) {
        let all = cases().map { ($0.name, [$0.packet], $0.mapping) } + slowCases()
        for (name, packets, mapping) in all {
            var configuration = TranslatorConfiguration(mappings: [mapping], ipv6MTU: 1500)
            configuration.errorsPerSecond = 1_000_000_000
            var translator = Translator(configuration, counters: TranslatorCounters())
            var memory = [UInt8](repeating: 0, count: Translator.headroom + 10 + 4096)
            var sink = Sink()
            var span = memory.mutableSpan
            var bytes = span.mutableBytes
            for round in 0...1000 {
                // The first round may allocate what is kept.
                if round == 1 { mtrace() }
                for packet in packets {
                    packet.withUnsafeBytes { original in
                        bytes.withUnsafeMutableBytes { target in
                            UnsafeMutableRawBufferPointer(rebasing: target[(Translator.headroom + 10)...])
                                .copyMemory(from: original)
                            for offset in 0..<10 { target[Translator.headroom + offset] = 0 }
                        }
                    }
                    let frame = Translator.headroom..<Translator.headroom + 10 + packet.count
                    translator.translate(&bytes, frame: frame, now: UInt64(round) * 1_000_000, into: &sink)
                }
            }
            muntrace()
            guard let count = allocations(trace) else { return print("\(name): allocations could not be counted") }
            print("\(name): \(count) allocations in 1000 rounds, \(sink.frames) frames")
        }
        countBatches(trace)
        mtrace()
        let control = [UInt8](repeating: 0, count: cases().count)
        muntrace()
        print("control, which allocates: \(allocations(trace) ?? 0) allocations, \(control.count) octets")
        unlink(trace)
    }

    /// The same of what writes the frames: datagrams both ways that wait, a stranger among them, a batch that is full.
    static func countBatches(_ trace: String) {
        let null = open("/dev/null", O_WRONLY | O_CLOEXEC)
        defer { close(null) }
        var sink = TUNSink(descriptor: null, batches: true)
        // Said to be right, for these checksums are not.
        let checked = [UInt8(VIRTIO_NET_HDR_F_DATA_VALID)] + [UInt8](repeating: 0, count: 9)
        let udp = cases().filter { $0.name.hasPrefix("UDP") }.map { checked + $0.packet }
        for round in 0...1000 {
            if round == 1 { mtrace() }
            for frame in udp {
                for _ in 0..<70 { frame.withUnsafeBytes { sink.send(RawSpan(_unsafeBytes: $0)) } }
            }
            sink.flush()
        }
        muntrace()
        guard let count = allocations(trace) else { return print("batches: allocations could not be counted") }
        print("batches: \(count) allocations in 1000 rounds, \(sink.faults) faults")
    }

    /// Lines of a trace that tell of memory got: `@ PLACE + ADDRESS SIZE`. Nil without a trace.
    static func allocations(_ trace: String) -> Int? {
        guard let file = fopen(trace, "r") else { return nil }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 4096)
        var (count, lines) = (0, 0)
        while fgets(&line, CInt(line.count), file) != nil {
            lines += 1
            if String(decoding: line.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self).contains(" + ") {
                count += 1
            }
        }
        return lines > 0 ? count : nil
    }

    static func packetIPv4(
        _ number: UInt8, _ source: IPv4Address, _ start: [UInt8]? = nil, _ length: Int = 40, ttl: UInt8 = 64,
        fragment: UInt16 = 0
    ) -> [UInt8] {
        let total = 20 + length
        var header: [UInt8] = [0x45, 0, UInt8(total >> 8), UInt8(total & 0xff), 0, 1]
        header += [UInt8(fragment >> 8), UInt8(fragment & 0xff), ttl, number, 0, 0] + source.bytes + [198, 51, 100, 1]
        var sum = stride(from: 0, to: 20, by: 2).reduce(0) { $0 + UInt32(header[$1]) << 8 + UInt32(header[$1 + 1]) }
        sum = (sum & 0xffff) + (sum >> 16)
        header[10] = UInt8(~sum >> 8 & 0xff)
        header[11] = UInt8(~sum & 0xff)
        let start = start ?? payload(number)
        return header + start + [UInt8](repeating: 0, count: length - start.count)
    }

    static func packetIPv6(_ number: UInt8, from source: IPv6Address, to destination: IPv6Address) -> [UInt8] {
        [0x60, 0, 0, 0, 0, 40, number, 64] + source.bytes + destination.bytes + payload(number)
    }

    static func payload(_ number: UInt8) -> [UInt8] {
        let first: UInt8 = number == 1 ? 8 : number == 58 ? 128 : 0x9c
        return [first, 0, 0, 0x35, 0, 40, 0x12, 0x34] + [UInt8](repeating: 0x50, count: 32)
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
