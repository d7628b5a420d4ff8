import CLinux
import Glibc

// IPv6 to IPv4 (RFC 7915 section 5). Whatever can refuse a packet comes before whatever changes it.

/// What lies under the extension headers of an IPv6 packet.
struct UpperLayer {
    var protocolNumber: UInt8
    /// Where it starts.
    var start: Int
    var fragment: Fragment?
}

extension Translator {
    mutating func translateIPv6(
        _ buffer: inout MutableRawSpan, _ packet: Range<Int>, _ offload: inout Offload, _ now: UInt64,
        _ sink: inout some PacketSink & ~Copyable
    ) throws(Refusal) {
        let start = packet.lowerBound
        guard let header = IPv6Header(buffer.bytes.extracting(packet)),
            IPv6Header.size &+ header.payloadLength <= packet.count
        else { throw Refusal(.ipv6HeaderInvalid) }
        let end = start &+ IPv6Header.size &+ header.payloadLength
        guard isOurs(header.destinationHigh, header.destinationLow) else { throw Refusal(.destinationNotOurs) }
        let upper = try upperLayer(buffer.bytes, header, start..<end)
        let payload = upper.start..<end
        guard
            let (mapping, remote) = mapping(
                ours: (header.destinationHigh, header.destinationLow), remote: (header.sourceHigh, header.sourceLow))
        else { throw Refusal(.sourceOutside) }
        try settle(
            &offload, &buffer, packet: start, payload: payload, protocolNumber: upper.protocolNumber,
            isFragment: upper.fragment != nil, tcpType: VIRTIO_NET_HDR_GSO_TCPV6)
        try checkSource(remote, mapping)
        if let fragment = upper.fragment { try fragment.check(length: payload.count) }
        guard payload.count <= 0xffff - IPv4Header.size else { throw Refusal(.resultTooLong) }

        var result = IPv4Header(
            trafficClass: configuration.copyTrafficClass ? header.trafficClass : 0,
            totalLength: IPv4Header.size &+ payload.count, identification: 0, fragmentField: 0,
            ttl: try ttl(header.hopLimit), protocolNumber: upper.protocolNumber, source: remote,
            destination: mapping.ipv4)
        if upper.protocolNumber == IPProtocol.icmpv6 {
            guard upper.fragment?.isAtomic ?? true else { throw Refusal(.fragmentInvalid) }
            let type = try icmpType(buffer.bytes, payload)
            guard type == UInt8(ICMP6_ECHO_REQUEST) || type == UInt8(ICMP6_ECHO_REPLY) else {
                throw Refusal(.icmpType)
            }
            result.protocolNumber = IPProtocol.icmp
            let pieceMTU = try pieceMTU(upper, payload, offload, buffer.bytes, packetLength: end &- start)
            translateEcho(&buffer, payload, fromIPv6: header, isRequest: type == UInt8(ICMP6_ECHO_REQUEST))
            return send(
                &buffer, payload, result, upper.fragment, pieceMTU, IPv4Header.size + payload.count,
                Offload(), &sink)
        }
        guard upper.protocolNumber != IPProtocol.icmp, upper.protocolNumber != IPProtocol.igmp else {
            throw Refusal(.protocolUntranslatable)
        }
        let pieceMTU = try pieceMTU(upper, payload, offload, buffer.bytes, packetLength: end &- start)
        if upper.fragment?.offset ?? 0 == 0 {
            try adaptChecksum(
                &buffer, payload, upper.protocolNumber, delta: mapping.deltaToIPv4(header, remote: remote),
                isPartial: offload.needsChecksum)
        }
        let request = offload.translated(
            gain: IPv4Header.size &- (payload.lowerBound &- start), tcpType: VIRTIO_NET_HDR_GSO_TCPV4)
        send(
            &buffer, payload, result, upper.fragment, pieceMTU, resultSize(upper, payload, offload, buffer.bytes),
            request, &sink)
    }
}

extension Translator {
    /// Steps over Hop-by-Hop, Routing and Destination Options headers and a Fragment header (RFC 7915 section 5.1); each
    /// begins with the next header's number, and but for Fragment with its length in units of 8 octets less one. Nothing
    /// but a transport may follow a Fragment header.
    @inline(__always)
    func upperLayer(_ bytes: RawSpan, _ header: IPv6Header, _ packet: Range<Int>) throws(Refusal) -> UpperLayer {
        var upper = UpperLayer(protocolNumber: header.nextHeader, start: packet.lowerBound &+ IPv6Header.size)
        while IPProtocol.isIPv6Extension(upper.protocolNumber) {
            try step(&upper, bytes, packet)
        }
        return upper
    }

    private func step(_ upper: inout UpperLayer, _ bytes: RawSpan, _ packet: Range<Int>) throws(Refusal) {
        guard upper.fragment == nil else { throw Refusal(.fragmentExtension) }
        guard packet.upperBound - upper.start >= 8 else { throw Refusal(.extensionHeaderInvalid) }
        let next = bytes.load8(upper.start)
        if upper.protocolNumber == IPProtocol.fragment {
            upper.fragment = Fragment(bytes.extracting(upper.start..<upper.start + 8))
            upper.start += IPv6Header.fragmentHeaderSize
            guard next != IPProtocol.ah else { throw Refusal(.fragmentExtension) }
        } else {
            let length = (Int(bytes.load8(upper.start + 1)) + 1) * 8
            guard packet.upperBound - upper.start >= length else { throw Refusal(.extensionHeaderInvalid) }
            let segmentsLeft = upper.start + 3
            if upper.protocolNumber == IPProtocol.routing, bytes.load8(segmentsLeft) != 0 {
                throw Refusal(
                    .routingHeader,
                    answer: .init(
                        type: UInt8(ICMP6_PARAM_PROB), code: UInt8(ICMP6_PARAMPROB_HEADER),
                        word: UInt32(segmentsLeft - packet.lowerBound)))
            }
            upper.start += length
        }
        upper.protocolNumber = next
    }

    /// Refuses IPv4 sources that nobody can have, and our own (RFC 6052 section 5.1).
    @inline(__always)
    private func checkSource(_ address: UInt32, _ mapping: ActiveMapping) throws(Refusal) {
        let first = address >> 24
        if first == 0 || first == 127 || first >= 224 && first < 240 || address == .max {
            throw Refusal(.sourceIPv4Illegal)
        }
        if self.mapping(ipv4: address) != nil { throw Refusal(.sourceOwn) }
        if configuration.strictWellKnownPrefix, mapping.isWellKnown, isPrivate(address) {
            throw Refusal(.privateUnderWellKnown)
        }
    }

    /// The TTL for the host. A hop limit that has run out is refused only where the configuration is strict: the packet has
    /// reached its host, which does not look at it.
    @inline(__always)
    func ttl(_ hopLimit: UInt8) throws(Refusal) -> UInt8 {
        if hopLimit > configuration.hopLimitDecrement { return hopLimit &- configuration.hopLimitDecrement }
        if configuration.strictHopLimit {
            throw Refusal(
                .hopLimitExpired,
                answer: .init(type: UInt8(ICMP6_TIME_EXCEEDED), code: UInt8(ICMP6_TIME_EXCEED_TRANSIT)))
        }
        return 1
    }

    /// Nil if the packet fits in one; otherwise the MTU to cut it to, which is allowed for fragments and for what was at
    /// most 1280 octets (RFC 7915 section 5.1.1). A super-packet is as big as its segments will be.
    @inline(__always)
    private func pieceMTU(
        _ upper: UpperLayer, _ payload: Range<Int>, _ offload: Offload, _ bytes: RawSpan, packetLength: Int
    ) throws(Refusal) -> Int? {
        let size = resultSize(upper, payload, offload, bytes)
        guard size > configuration.ipv4MTU else { return nil }
        if upper.fragment != nil || packetLength <= 1280 && !offload.isGSO { return configuration.ipv4MTU }
        throw Refusal(
            .ipv6TooBig,
            answer: .init(
                type: UInt8(ICMP6_PACKET_TOO_BIG), code: 0,
                word: UInt32(max(1280, configuration.ipv4MTU + IPv6Header.size - IPv4Header.size))))
    }

    /// Octets of the IPv4 packet, or of each segment of a super-packet.
    @inline(__always)
    func resultSize(_ upper: UpperLayer, _ payload: Range<Int>, _ offload: Offload, _ bytes: RawSpan) -> Int {
        if offload.isGSO { return IPv4Header.size &+ segmentSize(upper.protocolNumber, payload, offload, bytes) }
        return IPv4Header.size &+ payload.count
    }

    /// Sends one packet or, where `pieceMTU` says so, fragments of it. A packet without Fragment header keeps routers from
    /// fragmenting it if it is larger than 1260 octets (RFC 7915 section 5.1).
    @inline(__always)
    mutating func send(
        _ buffer: inout MutableRawSpan, _ payload: Range<Int>, _ header: IPv4Header, _ fragment: Fragment?,
        _ pieceMTU: Int?, _ size: Int, _ offload: Offload, _ sink: inout some PacketSink & ~Copyable
    ) {
        var header = header
        if let fragment {
            header.identification = UInt16(truncatingIfNeeded: fragment.identification)
            header.fragmentField = UInt16(fragment.offset / 8) | (fragment.more ? IPv4Header.moreFragments : 0)
        } else if size > 1260 {
            header.fragmentField = IPv4Header.dontFragment
        } else {
            header.identification = nextIdentification
            nextIdentification &+= 1
        }
        guard let pieceMTU else { return sendOne(&buffer, payload, header, offload, &sink) }
        let offset = fragment?.offset ?? 0
        let room = (pieceMTU - IPv4Header.size) & ~7
        var start = payload.lowerBound
        // A piece's header overwrites the end of the piece before it, which has been sent.
        while start < payload.upperBound {
            let end = min(start + room, payload.upperBound)
            let more = fragment?.more ?? false || end < payload.upperBound
            header.fragmentField =
                UInt16((offset + start - payload.lowerBound) / 8) | (more ? IPv4Header.moreFragments : 0)
            sendOne(&buffer, start..<end, header, Offload(), &sink)
            counters.add(to: .fragmentsMade)
            start = end
        }
    }

    @inline(__always)
    private mutating func sendOne(
        _ buffer: inout MutableRawSpan, _ payload: Range<Int>, _ header: IPv4Header, _ offload: Offload,
        _ sink: inout some PacketSink & ~Copyable
    ) {
        var header = header
        let start = payload.lowerBound &- IPv4Header.size
        header.totalLength = payload.upperBound &- start
        header.store(into: &buffer, at: start)
        offload.store(into: &buffer, at: start &- Offload.size)
        counters.count(outbound: false, header.protocolNumber, octets: header.totalLength)
        sink.send(buffer.bytes.extracting(start &- Offload.size..<payload.upperBound))
    }
}
