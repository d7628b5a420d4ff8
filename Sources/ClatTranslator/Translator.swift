import CLinux
import ClatBase

/// Where translated packets go.
public protocol PacketSink: ~Copyable {
    /// Takes a `virtio_net_hdr` (10 octets) and one IP packet; the octets are valid during the call only. IPv4 goes to the
    /// host, IPv6 to the uplink: the version nibble tells.
    mutating func send(_ frame: RawSpan)
}

/// A packet that is not translated: why, and the ICMP error that its sender gets, if any.
struct Refusal: Error {
    /// An ICMP error to make: type and code of the sender's IP version, and the second word of the message.
    struct Answer {
        var type: UInt8
        var code: UInt8
        var word: UInt32 = 0
    }

    var reason: DropReason
    var answer: Answer?

    init(_ reason: DropReason, answer: Answer? = nil) {
        self.reason = reason
        self.answer = answer
    }
}

/// The stateless translator of a CLAT: RFC 7915 both ways, with the additions that docs/conformance.md lists.
///
/// Packets are translated where they lie: the payload stays and the new headers are written before it, so a frame needs
/// `headroom` free octets before it in its buffer. Nothing is allocated per packet. One thread owns a translator.
///
/// No packet can crash it, make it loop, or read or write outside its buffer: every access is bounds-checked, every length
/// is proven before it is used, and every refusal is counted under a `DropReason`.
public struct Translator: ~Copyable, Sendable {
    /// Octets that must be free before a frame. The most that is ever written there are the headers of an ICMPv6 error.
    public static let headroom = 96

    let counters: TranslatorCounters
    var configuration: TranslatorConfiguration
    var mappings: [ActiveMapping] = []
    /// The next IPv4 identification where IPv6 gave none.
    var nextIdentification: UInt16 = 0
    var hostErrors = ErrorLimits()
    var networkErrors = ErrorLimits()
    var reassembler = Reassembler()
    var passedFirsts = PassedFirsts()
    /// Where a reassembled packet lies; empty until there is one.
    var wholePacket: [UInt8] = []
    /// Where translated ICMP errors are written.
    var errorFrame = [UInt8](repeating: 0, count: Offload.size + ErrorTranslation.limit)

    /// A translator of that configuration that counts there.
    public init(_ configuration: TranslatorConfiguration, counters: TranslatorCounters) {
        self.counters = counters
        self.configuration = configuration
        update(configuration)
    }

    /// Changes the configuration between two packets. Fragments that wait for the rest of their packet go on waiting.
    public mutating func update(_ configuration: TranslatorConfiguration) {
        self.configuration = configuration
        let ipv6MTU = min(max(configuration.ipv6MTU, 1280), 0xffff)
        self.configuration.ipv6MTU = ipv6MTU
        self.configuration.ipv4MTU = min(max(configuration.ipv4MTU, 68), 0xffff)
        self.configuration.lowestIPv6MTU = min(max(configuration.lowestIPv6MTU, 1280), ipv6MTU)
        mappings = configuration.pairs.map(ActiveMapping.init)
    }

    /// Translates one frame (a `virtio_net_hdr` of 10 octets and an IP packet) and sends what comes of it: one packet,
    /// several fragments, an ICMP error back, or nothing.
    ///
    /// - Parameters:
    ///   - buffer: holds the frame and `headroom` octets before it; what is in them is lost.
    ///   - frame: where in the buffer the frame is.
    ///   - now: nanoseconds of a monotonic clock.
    ///   - sink: gets the frames.
    public mutating func translate(
        _ buffer: inout MutableRawSpan, frame: Range<Int>, now: UInt64, into sink: inout some PacketSink & ~Copyable
    ) {
        guard frame.lowerBound >= Self.headroom, frame.upperBound <= buffer.byteCount else {
            return counters.drop(.noHeadroom)
        }
        guard frame.count >= Offload.size &+ IPv4Header.size else { return counters.drop(.frameTruncated) }
        let packet = frame.lowerBound &+ Offload.size..<frame.upperBound
        translate(&buffer, packet, Offload(buffer.bytes, at: frame.lowerBound), now, &sink)
    }

    mutating func translate(
        _ buffer: inout MutableRawSpan, _ packet: Range<Int>, _ offload: Offload, _ now: UInt64,
        _ sink: inout some PacketSink & ~Copyable
    ) {
        var offload = offload
        let version = buffer.bytes.load8(packet.lowerBound) >> 4
        do throws(Refusal) {
            switch version {
            case 4: try translateIPv4(&buffer, packet, &offload, now, &sink)
            case 6: try translateIPv6(&buffer, packet, &offload, now, &sink)
            default: throw Refusal(.versionUnknown)
            }
        } catch {
            counters.drop(error.reason)
            guard let answer = error.answer else { return }
            if version == 4 {
                answerHost(answer, &buffer, packet, &offload, now, &sink)
            } else {
                answerNetwork(answer, &buffer, packet, &offload, now, &sink)
            }
        }
    }

    /// The mapping whose IPv4 address the host sends from.
    @inline(__always)
    func mapping(ipv4 source: UInt32) -> ActiveMapping? {
        for index in mappings.indices where mappings[index].ipv4 == source { return mappings[index] }
        return nil
    }

    /// The mapping of one of our IPv6 addresses in whose PREF64 a remote address is, and the IPv4 address in that.
    @inline(__always)
    func mapping(
        ours: (high: UInt64, low: UInt64), remote: (high: UInt64, low: UInt64)
    ) -> (mapping: ActiveMapping, remote: UInt32)? {
        for index in mappings.indices where mappings[index].high == ours.high && mappings[index].low == ours.low {
            if let ipv4 = mappings[index].extract(remote.high, remote.low) { return (mappings[index], ipv4) }
        }
        return nil
    }

    /// Whether an IPv6 address is one of ours.
    @inline(__always)
    func isOurs(_ high: UInt64, _ low: UInt64) -> Bool {
        for index in mappings.indices where mappings[index].high == high && mappings[index].low == low { return true }
        return false
    }

    /// Whether an IPv4 address is one of ours.
    @inline(__always)
    func isOurs(_ ipv4: UInt32) -> Bool {
        for index in mappings.indices where mappings[index].ipv4 == ipv4 { return true }
        return false
    }

    /// The TTL or hop limit to write for one that was read, or nil if that has run out.
    @inline(__always)
    func hopLimit(after read: UInt8) -> UInt8? {
        let sent = Int(read) &+ Int(configuration.kernelHops)
        let rest = sent &- Int(configuration.hopLimitDecrement)
        return rest > 0 ? UInt8(truncatingIfNeeded: min(rest &+ Int(configuration.kernelHops), 255)) : nil
    }

    /// 192.0.0.0/29 (RFC 7335) and 192.0.0.8 (RFC 7600).
    @inline(__always)
    func isLocalToHosts(_ address: UInt32) -> Bool { address >= 0xc000_0000 && address <= ErrorTranslation.dummy }

    /// RFC 1918.
    func isPrivate(_ address: UInt32) -> Bool {
        address >> 24 == 10 || address >> 20 == 0xac1 || address >> 16 == 0xc0a8
    }

    /// Makes the kernel's offload request simple: either none, or TCP or UDP with the checksum field where it belongs.
    /// Anything else that wants a checksum gets it here, in software.
    mutating func settle(
        _ offload: inout Offload, _ buffer: inout MutableRawSpan, packet: Int, payload: Range<Int>,
        protocolNumber: UInt8, isFragment: Bool, tcpType: Int32
    ) throws(Refusal) {
        if offload.isGSO {
            guard !isFragment, offload.segments(protocolNumber, tcpType: tcpType) else {
                throw Refusal(.offloadInvalid)
            }
        }
        guard offload.needsChecksum else { return }
        let start = packet &+ Int(offload.csum_start)
        guard start >= payload.lowerBound, start &+ Int(offload.csum_offset) &+ 2 <= payload.upperBound else {
            throw Refusal(.offloadInvalid)
        }
        let field = IPProtocol.checksumField(protocolNumber)?.offset
        if isFragment || start != payload.lowerBound || field != Int(offload.csum_offset) {
            guard !offload.isGSO else { throw Refusal(.offloadInvalid) }
            offload.finishChecksum(&buffer, packet: packet..<payload.upperBound)
        }
    }
}

/// A mapping as plain numbers.
struct ActiveMapping {
    let ipv4: UInt32
    let high: UInt64
    let low: UInt64
    let layout: EmbeddingLayout
    /// What a checksummed sum gains towards IPv6 if the remote address does not matter, which `isConstant` says.
    let delta: UInt16
    let isConstant: Bool
    /// The PREF64 is 64:ff9b::/96.
    let isWellKnown: Bool

    init(_ mapping: Mapping) {
        ipv4 = mapping.ipv4.rawValue
        high = mapping.ipv6.high
        low = mapping.ipv6.low
        layout = mapping.pref64.layout
        delta = mapping.checksumDelta
        isConstant = layout.keepsWords
        isWellKnown = mapping.pref64 == .wellKnown
    }

    /// The IPv4 address in a remote address. A PREF64 shorter than 64 may hold our own link's /64: its nodes are native.
    @inline(__always)
    func extract(_ high: UInt64, _ low: UInt64) -> UInt32? {
        if !layout.isLast, high == self.high { return nil }
        return layout.extract(high, low)
    }

    /// What the checksummed sum of this packet gains from IPv4 to IPv6.
    @inline(__always)
    func deltaToIPv6(_ header: IPv6Header, remote: UInt32) -> UInt16 {
        isConstant ? delta : Checksum.difference(header.addressWords, UInt64(ipv4) &+ UInt64(remote))
    }

    /// What it gains from IPv6 to IPv4. Past a /32 the remote may have a suffix, which is ignored but was summed.
    @inline(__always)
    func deltaToIPv4(_ header: IPv6Header, remote: UInt32) -> UInt16 {
        let delta =
            layout.isLast ? self.delta : Checksum.difference(header.addressWords, UInt64(ipv4) &+ UInt64(remote))
        return delta == 0 ? 0 : ~delta
    }
}
