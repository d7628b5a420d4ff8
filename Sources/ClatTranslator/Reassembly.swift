import CLinux
import Glibc

// Where only a whole packet can be translated, fragments are put together first: ICMP, whose checksum in IPv6 covers the
// packet's length, and UDP without a checksum, which must get one (RFC 7915 sections 1.2, 4.5 and 5.5 leave these out).

extension Translator {
    /// Whether this IPv4 fragment has to wait for the rest of its packet. A UDP packet's first fragment tells: without
    /// checksum it waits and so do the others; those that come before it wait too, as it may be so.
    mutating func waits(
        _ header: IPv4Header, _ fragment: Fragment, _ payload: Range<Int>, _ bytes: RawSpan, _ now: UInt64
    ) -> Bool {
        if header.protocolNumber == IPProtocol.icmp { return true }
        guard header.protocolNumber == IPProtocol.udp else { return false }
        let key = Reassembler.Key(header)
        if reassembler.holds(key) { return true }
        if fragment.offset > 0 { return !passedFirsts.contains(key, now: now) }
        if payload.count < 8 || bytes.load16(payload.lowerBound + 6) == 0 { return true }
        passedFirsts.insert(key, now: now)
        return false
    }

    /// Adds an IPv4 fragment to what there is of its packet, and translates that if it is complete. What comes of it is cut no
    /// larger than the host has cut it: that may have followed a Packet Too Big.
    mutating func reassemble(
        _ header: IPv4Header, _ fragment: Fragment, _ payload: RawSpan, _ now: UInt64,
        _ sink: inout some PacketSink & ~Copyable
    ) throws(Refusal) {
        let head = Reassembler.Head(trafficClass: header.trafficClass, hopLimit: header.ttl)
        guard
            let (entry, length, largest) = try reassembler.add(
                Reassembler.Key(header), fragment, payload, head, now: now, counters)
        else { return }
        let lowestIPv6MTU = configuration.lowestIPv6MTU
        defer { configuration.lowestIPv6MTU = lowestIPv6MTU }
        configuration.lowestIPv6MTU = min(
            lowestIPv6MTU, max(1280, largest + IPv6Header.size + IPv6Header.fragmentHeaderSize))
        var header = header
        header.headerLength = IPv4Header.size
        header.totalLength = IPv4Header.size + length
        header.fragmentField = 0
        let limit = 0xffff - IPv4Header.size
        try translateWhole(entry, length, limit, headers: IPv4Header.size, now, &sink) { bytes, start, head in
            header.trafficClass = head.trafficClass
            header.ttl = head.hopLimit
            header.store(into: &bytes, at: start)
        }
    }

    /// The same for an IPv6 fragment. What comes of it has a Fragment header that says it is whole, so that it may be
    /// fragmented in IPv4 under the identification it came with.
    mutating func reassemble(
        _ header: IPv6Header, _ fragment: Fragment, _ payload: RawSpan, _ now: UInt64,
        _ sink: inout some PacketSink & ~Copyable
    ) throws(Refusal) {
        let head = Reassembler.Head(trafficClass: header.trafficClass, hopLimit: header.hopLimit)
        let key = Reassembler.Key(header, fragment)
        guard let (entry, length, _) = try reassembler.add(key, fragment, payload, head, now: now, counters) else {
            return
        }
        let headers = IPv6Header.size + IPv6Header.fragmentHeaderSize
        var header = header
        header.nextHeader = IPProtocol.fragment
        header.payloadLength = IPv6Header.fragmentHeaderSize + length
        let whole = Fragment(offset: 0, more: false, identification: fragment.identification)
        // The payload length does not count the IPv6 header.
        let limit = 0xffff - IPv6Header.fragmentHeaderSize
        try translateWhole(entry, length, limit, headers: headers, now, &sink) { bytes, start, head in
            header.trafficClass = head.trafficClass
            header.hopLimit = head.hopLimit
            header.store(into: &bytes, at: start)
            whole.store(nextHeader: IPProtocol.icmpv6, into: &bytes, at: start + IPv6Header.size)
        }
    }

    /// Where a reassembled packet lies: its frame with its headers, and `headroom` before it.
    static let wholePacketSize =
        headroom + Offload.size + IPv6Header.size + IPv6Header.fragmentHeaderSize + 0xffff

    /// Takes a complete packet out, has its headers written before it, and translates it like any other. More than `limit`
    /// octets no length field could tell.
    private mutating func translateWhole(
        _ entry: Int, _ length: Int, _ limit: Int, headers: Int, _ now: UInt64,
        _ sink: inout some PacketSink & ~Copyable,
        writeHeaders: (inout MutableRawSpan, Int, Reassembler.Head) -> Void
    ) throws(Refusal) {
        if wholePacket.isEmpty { wholePacket = [UInt8](repeating: 0, count: Self.wholePacketSize) }
        var memory: [UInt8] = []
        swap(&memory, &wholePacket)
        defer { swap(&memory, &wholePacket) }
        var span = memory.mutableSpan
        var bytes = span.mutableBytes
        let start = Self.headroom + Offload.size
        guard let head = reassembler.take(entry, length: length, into: &bytes, at: start + headers),
            length <= limit
        else { throw Refusal(.fragmentInvalid) }
        writeHeaders(&bytes, start, head)
        counters.add(to: .reassembled)
        translate(&bytes, start..<start + headers + length, Offload(), now, &sink)
    }
}

extension Reassembler.Key {
    init(_ header: IPv4Header) {
        self.init(
            sourceLow: UInt64(header.source), destinationLow: UInt64(header.destination),
            identification: UInt32(header.identification), protocolNumber: header.protocolNumber, version: 4)
    }

    init(_ header: IPv6Header, _ fragment: Fragment) {
        self.init(
            sourceHigh: header.sourceHigh, sourceLow: header.sourceLow, destinationHigh: header.destinationHigh,
            destinationLow: header.destinationLow, identification: fragment.identification,
            protocolNumber: IPProtocol.icmpv6, version: 6)
    }
}

/// The UDP packets of which the first fragment has passed, so that the others may follow: the last 128 of the last 30 s.
struct PassedFirsts: Sendable {
    private static let limit = 128

    private var passed: [(key: Reassembler.Key, deadline: UInt64)] = []
    private var oldest = 0

    func contains(_ key: Reassembler.Key, now: UInt64) -> Bool {
        passed.contains { $0.key == key && $0.deadline > now }
    }

    mutating func insert(_ key: Reassembler.Key, now: UInt64) {
        let entry = (key, now &+ Reassembler.timeout)
        if passed.count < Self.limit {
            if passed.isEmpty { passed.reserveCapacity(Self.limit) }
            return passed.append(entry)
        }
        passed[oldest] = entry
        oldest = (oldest + 1) % Self.limit
    }
}
