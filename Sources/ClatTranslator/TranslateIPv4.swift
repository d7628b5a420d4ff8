import CLinux
import Glibc

// IPv4 to IPv6 (RFC 7915 section 4). Whatever can refuse a packet comes before whatever changes it.

extension Translator {
    mutating func translateIPv4(
        _ buffer: inout MutableRawSpan, _ packet: Range<Int>, _ offload: inout Offload, _ now: UInt64,
        _ sink: inout some PacketSink & ~Copyable
    ) throws(Refusal) {
        let start = packet.lowerBound
        guard let header = IPv4Header(buffer.bytes.extracting(packet)), header.totalLength <= packet.count else {
            throw Refusal(.ipv4HeaderInvalid)
        }
        let payload = start &+ header.headerLength..<start &+ header.totalLength
        guard Checksum.sum(buffer.bytes.extracting(start..<payload.lowerBound)) == 0xffff else {
            throw Refusal(.ipv4ChecksumWrong)
        }
        guard let mapping = mapping(ipv4: header.source) else { throw Refusal(.sourceNotOurs) }
        try settle(
            &offload, &buffer, packet: start, payload: payload, protocolNumber: header.protocolNumber,
            isFragment: header.isFragment, tcpType: VIRTIO_NET_HDR_GSO_TCPV4)
        try checkDestination(header.destination, mapping)
        try checkProtocol(header.protocolNumber)
        if header.headerLength > IPv4Header.size,
            IPv4Header.asksForSourceRoute(
                buffer.bytes.extracting(start &+ IPv4Header.size..<payload.lowerBound))
        {
            throw Refusal(.sourceRoute, answer: .init(type: UInt8(ICMP_DEST_UNREACH), code: UInt8(ICMP_SR_FAILED)))
        }
        guard let hopLimit = hopLimit(after: header.ttl) else {
            throw Refusal(.ttlExpired, answer: .init(type: UInt8(ICMP_TIME_EXCEEDED), code: UInt8(ICMP_EXC_TTL)))
        }

        let remote = mapping.layout.embed(header.destination)
        var result = IPv6Header(
            trafficClass: configuration.copyTrafficClass ? header.trafficClass : 0, payloadLength: payload.count,
            nextHeader: header.protocolNumber, hopLimit: hopLimit, sourceHigh: mapping.high, sourceLow: mapping.low,
            destinationHigh: remote.high, destinationLow: remote.low)
        let fragment = header.isFragment ? header.fragment : nil
        try fragment?.check(length: payload.count)
        if let fragment, waits(header, fragment, payload, buffer.bytes, now) {
            return try reassemble(header, fragment, buffer.bytes.extracting(payload), now, &sink)
        }
        if header.protocolNumber == IPProtocol.icmp {
            return try translateICMP(&buffer, payload, header, &result, mapping, offload, &sink)
        }
        let pieceMTU = try pieceMTU(header, payload, offload, buffer.bytes)
        if pieceMTU != nil, offload.needsChecksum {
            offload.finishChecksum(&buffer, packet: start..<payload.upperBound)
        }
        if fragment?.offset ?? 0 == 0 {
            try Transport.adaptChecksum(
                &buffer, payload, result, delta: mapping.deltaToIPv6(result, remote: header.destination),
                isPartial: offload.needsChecksum)
        }
        let request = offload.translated(
            gain: IPv6Header.size &- header.headerLength, tcpType: VIRTIO_NET_HDR_GSO_TCPV6)
        send(&buffer, payload, result, fragment, pieceMTU, header.identification, request, &sink)
    }

    /// ICMP echo is changed in place, errors are written anew.
    private mutating func translateICMP(
        _ buffer: inout MutableRawSpan, _ message: Range<Int>, _ header: IPv4Header, _ result: inout IPv6Header,
        _ mapping: ActiveMapping, _ offload: Offload, _ sink: inout some PacketSink & ~Copyable
    ) throws(Refusal) {
        guard message.count >= ICMPHeader.size else { throw Refusal(.transportTruncated) }
        result.nextHeader = IPProtocol.icmpv6
        let type = buffer.bytes.load8(message.lowerBound)
        if ICMPHeader.isError(ipv4: type) {
            let translation = ErrorTranslation(mapping: mapping, configuration: configuration)
            let counters = counters
            var frame = errorFrame.mutableSpan
            var bytes = frame.mutableBytes
            let length = try translation.toIPv6(buffer.bytes.extracting(message), result, into: &bytes)
            counters.count(outbound: true, IPProtocol.icmpv6, octets: length)
            return sink.send(bytes.bytes.extracting(0..<Offload.size + length))
        }
        guard type == UInt8(ICMP_ECHO) || type == UInt8(ICMP_ECHOREPLY) else { throw Refusal(.icmpType) }
        let pieceMTU = try pieceMTU(header, message, offload, buffer.bytes)
        Transport.translateEcho(&buffer, message, result, isRequest: type == UInt8(ICMP_ECHO))
        send(&buffer, message, result, nil, pieceMTU, header.identification, Offload(), &sink)
    }

    /// Refuses destinations that are not on the other side (RFC 6890; RFC 7335 for 192.0.0.0/29; RFC 7600 for 192.0.0.8).
    @inline(__always)
    private func checkDestination(_ address: UInt32, _ mapping: ActiveMapping) throws(Refusal) {
        let first = address >> 24
        if first >= 224 {
            if first < 240 { throw Refusal(.destinationMulticast) }
            throw Refusal(.destinationReserved, answer: address == .max ? nil : .prohibited)
        }
        if first == 0 || first == 127 { throw Refusal(.destinationReserved) }
        if address >> 16 == 0xa9fe { throw Refusal(.destinationReserved, answer: .prohibited) }
        if isOurs(address) { throw Refusal(.destinationOwn) }
        if isLocalToHosts(address) {
            throw Refusal(.destinationContinuity, answer: .prohibited)
        }
        if configuration.strictWellKnownPrefix, mapping.isWellKnown, isPrivate(address) {
            throw Refusal(.privateUnderWellKnown, answer: .prohibited)
        }
    }

    /// Refuses what is not a transport: IGMP, and numbers that IPv6 would read as its own headers.
    @inline(__always)
    private func checkProtocol(_ number: UInt8) throws(Refusal) {
        if number == IPProtocol.tcp || number == IPProtocol.udp || number == IPProtocol.icmp { return }
        if number == IPProtocol.igmp { throw Refusal(.igmp) }
        if number == IPProtocol.icmpv6 || IPProtocol.isIPv6Extension(number) {
            throw Refusal(.protocolUntranslatable, answer: .prohibited)
        }
    }

    /// Nil if the packet fits in one; otherwise the MTU to cut it to (RFC 7915 section 4.1). A super-packet is as big as its
    /// segments will be and is never cut here: with DF clear or set its sender is told.
    @inline(__always)
    private func pieceMTU(
        _ header: IPv4Header, _ payload: Range<Int>, _ offload: Offload, _ bytes: RawSpan
    ) throws(Refusal) -> Int? {
        var size = payload.count &+ IPv6Header.size
        if header.isFragment { size &+= IPv6Header.fragmentHeaderSize }
        if offload.isGSO {
            size = IPv6Header.size &+ Transport.segmentSize(header.protocolNumber, payload, offload, bytes)
        }
        let mayFragment = header.mayFragment && !offload.isGSO
        guard size > (mayFragment ? configuration.lowestIPv6MTU : configuration.ipv6MTU) else { return nil }
        guard !mayFragment else { return configuration.lowestIPv6MTU }
        let overhead = IPv6Header.size &- IPv4Header.size &+ (header.isFragment ? IPv6Header.fragmentHeaderSize : 0)
        throw Refusal(
            .ipv4TooBig,
            answer: .init(
                type: UInt8(ICMP_DEST_UNREACH), code: UInt8(ICMP_FRAG_NEEDED),
                word: UInt32(configuration.ipv6MTU &- overhead)))
    }

    /// Sends one packet or, where `pieceMTU` says so, fragments of it.
    @inline(__always)
    mutating func send(
        _ buffer: inout MutableRawSpan, _ payload: Range<Int>, _ header: IPv6Header, _ fragment: Fragment?,
        _ pieceMTU: Int?, _ identification: UInt16, _ offload: Offload, _ sink: inout some PacketSink & ~Copyable
    ) {
        guard let pieceMTU else { return sendOne(&buffer, payload, header, fragment, offload, &sink) }
        let whole = fragment ?? Fragment(offset: 0, more: false, identification: UInt32(identification))
        let room = (pieceMTU - IPv6Header.size - IPv6Header.fragmentHeaderSize) & ~7
        var start = payload.lowerBound
        // A piece's headers overwrite the end of the piece before it, which has been sent.
        while start < payload.upperBound {
            let end = min(start + room, payload.upperBound)
            let piece = Fragment(
                offset: whole.offset + start - payload.lowerBound, more: whole.more || end < payload.upperBound,
                identification: whole.identification)
            sendOne(&buffer, start..<end, header, piece, Offload(), &sink)
            counters.add(to: .fragmentsMade)
            start = end
        }
    }

    @inline(__always)
    private mutating func sendOne(
        _ buffer: inout MutableRawSpan, _ payload: Range<Int>, _ header: IPv6Header, _ fragment: Fragment?,
        _ offload: Offload, _ sink: inout some PacketSink & ~Copyable
    ) {
        let protocolNumber = header.nextHeader
        var header = header
        var start = payload.lowerBound &- IPv6Header.size
        header.payloadLength = payload.count
        if let fragment {
            start &-= IPv6Header.fragmentHeaderSize
            fragment.store(nextHeader: header.nextHeader, into: &buffer, at: start &+ IPv6Header.size)
            header.nextHeader = IPProtocol.fragment
            header.payloadLength &+= IPv6Header.fragmentHeaderSize
        }
        header.store(into: &buffer, at: start)
        offload.store(into: &buffer, at: start &- Offload.size)
        counters.count(outbound: true, protocolNumber, octets: payload.upperBound &- start)
        sink.send(buffer.bytes.extracting(start &- Offload.size..<payload.upperBound))
    }
}

extension Refusal.Answer {
    /// Communication administratively prohibited (RFC 1812 section 5.2.7.1): what RFC 7915 section 4.4 answers with.
    static var prohibited: Self { .init(type: UInt8(ICMP_DEST_UNREACH), code: UInt8(ICMP_PKT_FILTERED)) }
}

extension Fragment {
    /// Refuses what cannot be a part of a packet of at most 65535 octets.
    func check(length: Int) throws(Refusal) {
        guard length > 0 || isAtomic, !more || length % 8 == 0, offset + length <= 0xffff else {
            throw Refusal(.fragmentInvalid)
        }
    }
}
