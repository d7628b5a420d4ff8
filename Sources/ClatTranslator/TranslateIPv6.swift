import CLinux
import Glibc

// IPv6 to IPv4 (RFC 7915 section 5). Whatever can refuse a packet comes before whatever changes it.

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
        guard !header.isSourceIllegal else { throw Refusal(.sourceIllegal) }
        let upper = try UpperLayer(buffer.bytes, header, start..<end)
        let payload = upper.start..<end
        let isWhole = upper.fragment?.isAtomic ?? true
        let inside = mapping(
            ours: (header.destinationHigh, header.destinationLow), remote: (header.sourceHigh, header.sourceLow))
        try settle(
            &offload, &buffer, packet: start, payload: payload, protocolNumber: upper.protocolNumber,
            isFragment: upper.fragment != nil, tcpType: VIRTIO_NET_HDR_GSO_TCPV6)
        if upper.protocolNumber == IPProtocol.icmpv6, isWhole {
            guard payload.count >= ICMPHeader.size else { throw Refusal(.transportTruncated) }
            if ICMPHeader.isError(ipv6: buffer.bytes.load8(payload.lowerBound)) {
                return try translateError(buffer.bytes.extracting(payload), header, from: inside?.remote, &sink)
            }
        }
        guard let (mapping, remote) = inside else { throw outsider(header, upper) }
        try checkSource(remote, mapping)
        try upper.fragment?.check(length: payload.count)
        guard payload.count <= 0xffff - IPv4Header.size else { throw Refusal(.resultTooLong) }
        guard upper.protocolNumber != IPProtocol.icmp, upper.protocolNumber != IPProtocol.igmp else {
            throw Refusal(.protocolUntranslatable)
        }
        var result = IPv4Header(
            trafficClass: configuration.copyTrafficClass ? header.trafficClass : 0,
            totalLength: IPv4Header.size &+ payload.count, identification: 0, fragmentField: 0,
            ttl: try ttl(header.hopLimit), protocolNumber: upper.protocolNumber, source: remote,
            destination: mapping.ipv4)
        if upper.protocolNumber == IPProtocol.icmpv6 {
            if !isWhole, let fragment = upper.fragment {
                return try reassemble(header, fragment, buffer.bytes.extracting(payload), now, &sink)
            }
            let type = try echoType(buffer.bytes.load8(payload.lowerBound))
            result.protocolNumber = IPProtocol.icmp
            let pieceMTU = try pieceMTU(upper, payload, offload, buffer.bytes, packetLength: end &- start)
            Transport.translateEcho(&buffer, payload, fromIPv6: header, type: type)
            return send(
                &buffer, payload, result, upper.fragment, pieceMTU, result.totalLength, Offload(), &sink)
        }
        let pieceMTU = try pieceMTU(upper, payload, offload, buffer.bytes, packetLength: end &- start)
        if pieceMTU != nil, offload.needsChecksum {
            offload.finishChecksum(&buffer, packet: start..<payload.upperBound)
        }
        if upper.fragment?.offset ?? 0 == 0 {
            try Transport.adaptChecksum(
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
    /// Writes an ICMPv6 error anew as an ICMP one. Without an IPv4 address its source becomes 192.0.0.8
    /// (draft-ietf-v6ops-icmpext-xlat-v6only-source); with one, even an impossible one is shown, for troubleshooting
    /// (RFC 7915 section 5.1), but for our own.
    private mutating func translateError(
        _ message: RawSpan, _ header: IPv6Header, from remote: UInt32?, _ sink: inout some PacketSink & ~Copyable
    ) throws(Refusal) {
        if let remote, isOurs(remote) { throw Refusal(.sourceOwn) }
        guard let embedded = IPv6Header(message.extracting(droppingFirst: ICMPHeader.size)) else {
            throw Refusal(.embeddedInvalid)
        }
        guard
            let (mapping, _) = mapping(
                ours: (header.destinationHigh, header.destinationLow),
                remote: (embedded.destinationHigh, embedded.destinationLow))
        else { throw Refusal(.embeddedNotOurs) }
        let translation = ErrorTranslation(mapping: mapping, configuration: configuration)
        let result = IPv4Header(
            trafficClass: configuration.copyTrafficClass ? header.trafficClass : 0, totalLength: 0,
            identification: nextIdentification, fragmentField: 0, ttl: try ttl(header.hopLimit),
            protocolNumber: IPProtocol.icmp, source: remote ?? ErrorTranslation.dummy, destination: mapping.ipv4)
        nextIdentification &+= 1
        let counters = counters
        var frame = errorFrame.mutableSpan
        var bytes = frame.mutableBytes
        let length = try translation.toIPv4(message, header, result, isOutside: remote == nil, into: &bytes)
        counters.count(outbound: false, IPProtocol.icmp, octets: length)
        sink.send(bytes.bytes.extracting(0..<Offload.size + length))
    }

    /// Why a packet from outside the PREF64 is refused, and whether its sender is told (RFC 7915 section 5.4). Neighbor
    /// Discovery, Multicast Listener Discovery and native echo are the kernel's, and it has answered them.
    private func outsider(_ header: IPv6Header, _ upper: UpperLayer) -> Refusal {
        if upper.protocolNumber == IPProtocol.icmpv6 { return Refusal(.nativeICMPv6) }
        if header.isSourceLinkLocal { return Refusal(.sourceIllegal) }
        let answer = Refusal.Answer(type: UInt8(ICMP6_DST_UNREACH), code: UInt8(ICMP6_DST_UNREACH_ADMIN))
        return Refusal(.sourceOutside, answer: configuration.answerUntranslatable ? answer : nil)
    }

    /// The ICMP type of an ICMPv6 echo; refuses all other types that are no errors.
    private func echoType(_ type: UInt8) throws(Refusal) -> UInt8 {
        switch Int32(type) {
        case ICMP6_ECHO_REQUEST: return UInt8(ICMP_ECHO)
        case ICMP6_ECHO_REPLY: return UInt8(ICMP_ECHOREPLY)
        case MLD_LISTENER_QUERY...MLD_LISTENER_REDUCTION, ICMPHeader.mldv2Report: throw Refusal(.multicastListener)
        case ND_ROUTER_SOLICIT...ND_REDIRECT: throw Refusal(.neighborDiscovery)
        default: throw Refusal(.icmpType)
        }
    }

    /// Refuses IPv4 sources that nobody can have (RFC 1812 section 5.3.7), that stay on their link (RFC 3927 section 7) or on
    /// their host (RFC 7335, RFC 7600), and our own (RFC 6052 section 5.1).
    @inline(__always)
    private func checkSource(_ address: UInt32, _ mapping: ActiveMapping) throws(Refusal) {
        let first = address >> 24
        if first == 0 || first == 127 || first >= 224 || address >> 16 == 0xa9fe {
            throw Refusal(.sourceIPv4Illegal)
        }
        if isOurs(address) { throw Refusal(.sourceOwn) }
        if isLocalToHosts(address) { throw Refusal(.sourceIPv4Illegal) }
        if configuration.strictWellKnownPrefix, mapping.isWellKnown, isPrivate(address) {
            throw Refusal(.privateUnderWellKnown)
        }
    }

    /// The TTL for the host. A hop limit that has run out is refused only where the configuration is strict: the packet has
    /// reached its host, which does not look at it.
    @inline(__always)
    func ttl(_ hopLimit: UInt8) throws(Refusal) -> UInt8 {
        if let rest = self.hopLimit(after: hopLimit) { return rest }
        if configuration.strictHopLimit {
            throw Refusal(
                .hopLimitExpired,
                answer: .init(type: UInt8(ICMP6_TIME_EXCEEDED), code: UInt8(ICMP6_TIME_EXCEED_TRANSIT)))
        }
        return 1 &+ configuration.kernelHops
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
        if offload.isGSO {
            return IPv4Header.size &+ Transport.segmentSize(upper.protocolNumber, payload, offload, bytes)
        }
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
            header.fragmentField = fragment.ipv4Field
        } else if size > 1260 {
            header.fragmentField = IPv4Header.dontFragment
        } else {
            header.identification = nextIdentification
            nextIdentification &+= 1
        }
        guard let pieceMTU else { return sendOne(&buffer, payload, header, offload, &sink) }
        let whole = fragment ?? Fragment(offset: 0, more: false, identification: 0)
        let room = (pieceMTU - IPv4Header.size) & ~7
        var start = payload.lowerBound
        // A piece's header overwrites the end of the piece before it, which has been sent.
        while start < payload.upperBound {
            let end = min(start + room, payload.upperBound)
            header.fragmentField =
                Fragment(
                    offset: whole.offset + start - payload.lowerBound, more: whole.more || end < payload.upperBound,
                    identification: 0
                ).ipv4Field
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
