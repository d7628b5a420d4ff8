import CLinux
import Glibc

/// Writes an ICMP error of one IP version anew in the other (RFC 7915 sections 4.2, 4.3, 5.2 and 5.3).
///
/// An error carries the start of the packet that it is about. That packet was translated on its way out, so it is
/// translated back, by the same rules but for its hop limit, which stays. It must be ours. An error within is refused.
struct ErrorTranslation {
    let mapping: ActiveMapping
    let configuration: TranslatorConfiguration

    /// The most octets of a packet that is written: an ICMPv6 error's limit (RFC 4443 section 2.4 (c)).
    static let limit = 1280
    /// The most octets of an ICMP error with extensions, IPv4 header included (RFC 4884 section 4.2).
    private static let extendedIPv4Limit = 576
    /// 192.0.0.8, the IPv4 dummy address (RFC 7600 section 4.8): stands for a source that has no IPv4 address.
    static let dummy: UInt32 = 0xc000_0008

    /// Writes a frame that begins with its virtio_net_hdr and returns the length of the packet in it. `outer` is the
    /// packet's header but for its length.
    func toIPv6(_ message: RawSpan, _ outer: IPv6Header, into frame: inout MutableRawSpan) throws(Refusal) -> Int {
        guard Checksum.sum(message) == 0xffff else { throw Refusal(.icmpChecksumWrong) }
        let head = try ICMPErrorHeader(
            fromIPv4: message.load8(0), message.load8(1), pointer: message.load8(4))
        let body = ErrorBody(message, attribute: 5, unit: 4, isExtensible: true)
        let start = Offload.size + IPv6Header.size
        let content = start + ICMPHeader.size
        // Packet Too Big and Parameter Problem have no extensions in ICMPv6 (RFC 4884 section 4).
        var extensions =
            Int32(head.type) <= ICMP6_DST_UNREACH || Int32(head.type) == ICMP6_TIME_EXCEEDED
            ? body.extensions : nil
        var room = Self.limit - IPv6Header.size - ICMPHeader.size
        if let count = extensions?.count {
            if room - count >= 128 { room = (room - count) & ~7 } else { extensions = nil }
        }
        let embedded = try embedIPv6(message.extracting(body.datagram), into: &frame, at: content, room: room)
        var end = content + embedded.length
        var attribute: UInt32 = 0
        if let extensions {
            let padded = content + max(128, (embedded.length + 7) & ~7)
            frame.clear(end..<padded)
            frame.copy(message.extracting(extensions), to: padded)
            attribute = UInt32((padded - content) / 8) << 24
            end = padded + extensions.count
        }
        let second: UInt32 =
            switch head.rest {
            case .unused: attribute
            case .mtu: PathMTU.toIPv6(message.load16(6), embeddedLength: embedded.total, configuration)
            case .pointer(let pointer): UInt32(pointer)
            }
        var header = outer
        header.payloadLength = end - start
        let pseudo = Checksum.pseudoHeader(length: end - start, nextHeader: IPProtocol.icmpv6)
        ICMPHeader.store(head.type, head.code, second, into: &frame, start..<end, plus: header.addressWords + pseudo)
        header.store(into: &frame, at: Offload.size)
        Offload().store(into: &frame, at: 0)
        return end - Offload.size
    }

    /// The same towards IPv4; `header` is what the message came under. For a source without IPv4 address the message says
    /// which IPv6 address it was.
    func toIPv4(
        _ message: RawSpan, _ header: IPv6Header, _ outer: IPv4Header, isOutside: Bool,
        into frame: inout MutableRawSpan
    ) throws(Refusal) -> Int {
        let pseudo = Checksum.pseudoHeader(length: message.byteCount, nextHeader: IPProtocol.icmpv6)
        guard Checksum.fold(UInt64(Checksum.sum(message)) + header.addressWords + pseudo) == 0xffff else {
            throw Refusal(.icmpChecksumWrong)
        }
        let head = try ICMPErrorHeader(fromIPv6: message.load8(0), message.load8(1), pointer: message.load32(4))
        let type = Int32(message.load8(0))
        let body = ErrorBody(
            message, attribute: 4, unit: 8, isExtensible: type == ICMP6_DST_UNREACH || type == ICMP6_TIME_EXCEEDED)
        let start = Offload.size + IPv4Header.size
        let content = start + ICMPHeader.size

        let identify = isOutside && configuration.nodeIdentification
        let extendedRoom = Self.extendedIPv4Limit - IPv4Header.size - ICMPHeader.size - 128
        var extensions = body.extensions
        let added = identify ? NodeIdentification.size : 0
        if let count = extensions?.count, count + added > extendedRoom { extensions = nil }
        let extensionLength =
            (extensions?.count ?? (identify ? NodeIdentification.structureHeader : 0)) + added
        let room =
            extensionLength > 0
            ? (extendedRoom + 128 - extensionLength) & ~3 : Self.limit - IPv4Header.size - ICMPHeader.size
        let embedded = try embedIPv4(message.extracting(body.datagram), into: &frame, at: content, room: room)
        var end = content + embedded.length
        var attribute: UInt32 = 0
        if extensionLength > 0 {
            let padded = content + max(128, (embedded.length + 3) & ~3)
            frame.clear(end..<padded)
            if let extensions { frame.copy(message.extracting(extensions), to: padded) }
            end = padded + extensionLength
            if identify {
                NodeIdentification.append(
                    header.sourceHigh, header.sourceLow, into: &frame, structure: padded..<end, isNew: extensions == nil
                )
            }
            attribute = UInt32((padded - content) / 4) << 16
        }
        let second: UInt32 =
            switch head.rest {
            case .unused: attribute
            case .mtu:
                try PathMTU.toIPv4(message.load32(4), embeddedIsFragment: embedded.isFragment, configuration)
                    | attribute
            case .pointer(let pointer): UInt32(pointer) << 24 | attribute
            }
        var outer = outer
        outer.totalLength = end - Offload.size
        if outer.totalLength > 1260 { outer.fragmentField = IPv4Header.dontFragment }
        ICMPHeader.store(head.type, head.code, second, into: &frame, start..<end, plus: 0)
        outer.store(into: &frame, at: Offload.size)
        Offload().store(into: &frame, at: 0)
        return end - Offload.size
    }

    /// Translates the start of a packet from IPv4 into at most `room` octets. Gives the octets written and the packet's
    /// whole length in IPv4.
    private func embedIPv6(
        _ datagram: RawSpan, into frame: inout MutableRawSpan, at offset: Int, room: Int
    ) throws(Refusal) -> (length: Int, total: Int) {
        guard let header = IPv4Header(datagram) else { throw Refusal(.embeddedInvalid) }
        guard header.destination == mapping.ipv4 else { throw Refusal(.embeddedNotOurs) }
        let number = header.protocolNumber
        guard number != IPProtocol.igmp, number != IPProtocol.icmpv6, !IPProtocol.isIPv6Extension(number) else {
            throw Refusal(.embeddedUntranslatable)
        }
        let remote = mapping.layout.embed(header.source)
        var inner = IPv6Header(
            trafficClass: configuration.copyTrafficClass ? header.trafficClass : 0,
            payloadLength: header.payloadLength, nextHeader: number == IPProtocol.icmp ? IPProtocol.icmpv6 : number,
            hopLimit: header.ttl, sourceHigh: remote.high, sourceLow: remote.low, destinationHigh: mapping.high,
            destinationLow: mapping.low)
        let transport =
            offset + IPv6Header.size + (header.isFragment ? IPv6Header.fragmentHeaderSize : 0)
        let available = min(datagram.byteCount - header.headerLength, room - (transport - offset))
        let data = transport..<transport + available
        frame.copy(
            datagram.extracting(header.headerLength..<header.headerLength + available), to: transport)
        if header.fragment.offset == 0 {
            if number == IPProtocol.icmp {
                let pseudo = Checksum.pseudoHeader(length: header.payloadLength, nextHeader: IPProtocol.icmpv6)
                try adaptEcho(&frame, data, toIPv6: true, gain: Checksum.fold(inner.addressWords + pseudo))
            } else {
                adaptChecksum(&frame, data, number, delta: mapping.deltaToIPv6(inner, remote: header.source))
            }
        }
        if header.isFragment {
            header.fragment.store(nextHeader: inner.nextHeader, into: &frame, at: offset + IPv6Header.size)
            inner.nextHeader = IPProtocol.fragment
            inner.payloadLength += IPv6Header.fragmentHeaderSize
        }
        inner.store(into: &frame, at: offset)
        return (data.upperBound - offset, header.totalLength)
    }

    /// The same from IPv6; tells whether the packet has a Fragment header.
    private func embedIPv4(
        _ datagram: RawSpan, into frame: inout MutableRawSpan, at offset: Int, room: Int
    ) throws(Refusal) -> (length: Int, isFragment: Bool) {
        guard let inner = IPv6Header(datagram) else { throw Refusal(.embeddedInvalid) }
        guard inner.sourceHigh == mapping.high, inner.sourceLow == mapping.low,
            let remote = mapping.extract(inner.destinationHigh, inner.destinationLow)
        else { throw Refusal(.embeddedNotOurs) }
        let upper: UpperLayer
        do {
            upper = try UpperLayer(datagram, inner, 0..<datagram.byteCount)
        } catch {
            throw Refusal(.embeddedInvalid)
        }
        let number = upper.protocolNumber
        guard number != IPProtocol.icmp, number != IPProtocol.igmp else { throw Refusal(.embeddedUntranslatable) }
        let upperLength = inner.payloadLength - (upper.start - IPv6Header.size)
        guard upperLength >= 0, upperLength <= 0xffff - IPv4Header.size else { throw Refusal(.embeddedInvalid) }
        var header = IPv4Header(
            trafficClass: configuration.copyTrafficClass ? inner.trafficClass : 0,
            totalLength: IPv4Header.size + upperLength, identification: 0, fragmentField: 0, ttl: inner.hopLimit,
            protocolNumber: number == IPProtocol.icmpv6 ? IPProtocol.icmp : number, source: mapping.ipv4,
            destination: remote)
        if let fragment = upper.fragment {
            header.identification = UInt16(truncatingIfNeeded: fragment.identification)
            header.fragmentField = fragment.ipv4Field
        } else if header.totalLength > 1260 {
            header.fragmentField = IPv4Header.dontFragment
        }
        let transport = offset + IPv4Header.size
        let available = min(datagram.byteCount - upper.start, room - IPv4Header.size)
        let data = transport..<transport + available
        frame.copy(datagram.extracting(upper.start..<upper.start + available), to: transport)
        if upper.fragment?.offset ?? 0 == 0 {
            if number == IPProtocol.icmpv6 {
                let pseudo = Checksum.pseudoHeader(length: upperLength, nextHeader: IPProtocol.icmpv6)
                try adaptEcho(&frame, data, toIPv6: false, gain: ~Checksum.fold(inner.addressWords + pseudo))
            } else {
                adaptChecksum(&frame, data, number, delta: mapping.deltaToIPv4(inner, remote: remote))
            }
        }
        header.store(into: &frame, at: offset)
        return (data.upperBound - offset, upper.fragment != nil)
    }

    /// Adapts the checksum of a transport header if it is among the octets there are; UDP's "none" stays.
    private func adaptChecksum(
        _ frame: inout MutableRawSpan, _ data: Range<Int>, _ protocolNumber: UInt8, delta: UInt16
    ) {
        guard let (offset, _) = IPProtocol.checksumField(protocolNumber), data.count >= offset + 2 else { return }
        let field = data.lowerBound + offset
        if protocolNumber == IPProtocol.udp, frame.bytes.load16(field) == 0 { return }
        Transport.moveChecksum(&frame, field, protocolNumber, delta: delta, isPartial: false)
    }

    /// Turns the start of an echo into the other version's; other messages are refused. Of a fragmented echo the length,
    /// and so the checksum, is not known: what comes out is as good as nobody verifies it.
    private func adaptEcho(
        _ frame: inout MutableRawSpan, _ data: Range<Int>, toIPv6: Bool, gain: UInt16
    ) throws(Refusal) {
        guard data.count >= 1 else { return }
        let type: Int32
        switch (Int32(frame.bytes.load8(data.lowerBound)), toIPv6) {
        case (ICMP_ECHO, true): type = ICMP6_ECHO_REQUEST
        case (ICMP_ECHOREPLY, true): type = ICMP6_ECHO_REPLY
        case (ICMP6_ECHO_REQUEST, false): type = ICMP_ECHO
        case (ICMP6_ECHO_REPLY, false): type = ICMP_ECHOREPLY
        default: throw Refusal(.embeddedUntranslatable)
        }
        guard data.count >= 4 else { return frame.store8(UInt8(type), data.lowerBound) }
        Transport.replaceICMPType(&frame, data.lowerBound, UInt8(type), gain: gain)
    }
}
