import CLinux
import Glibc

// Checksums of transport protocols (RFC 7915 sections 4.5 and 5.5), and ICMP echo.

enum Transport {
    /// Brings the checksum of a transport header, which begins `payload`, from IPv4 to the IPv6 header `result`.
    ///
    /// The old and the new pseudo-header differ in the addresses only; `delta` is what their sum gains. A UDP packet
    /// without checksum gets one (RFC 7915 section 4.5 and its erratum 6955), for which all of it must be there.
    @inline(__always)
    static func adaptChecksum(
        _ buffer: inout MutableRawSpan, _ payload: Range<Int>, _ result: IPv6Header, delta: UInt16, isPartial: Bool
    ) throws(Refusal) {
        guard let (offset, minimum) = IPProtocol.checksumField(result.nextHeader) else { return }
        guard payload.count >= minimum else { return try passTruncated(result.nextHeader) }
        let field = payload.lowerBound &+ offset
        if result.nextHeader == IPProtocol.udp, buffer.bytes.load16(field) == 0 {
            let length = Int(buffer.bytes.load16(payload.lowerBound &+ 4))
            guard length >= 8, length <= payload.count else { throw Refusal(.udpLengthInvalid) }
            var sum = result.addressWords &+ Checksum.pseudoHeader(length: length, nextHeader: result.nextHeader)
            if isPartial { return buffer.store16(Checksum.fold(sum), field) }
            sum &+= UInt64(Checksum.sum(buffer.bytes.extracting(payload.lowerBound..<payload.lowerBound + length)))
            let checksum = ~Checksum.fold(sum)
            return buffer.store16(checksum == 0 ? 0xffff : checksum, field)
        }
        moveChecksum(&buffer, field, result.nextHeader, delta: delta, isPartial: isPartial)
    }

    /// The same from IPv6 to IPv4. A UDP packet without checksum is refused: no IPv6 host would take it (RFC 8200 section 8.1).
    @inline(__always)
    static func adaptChecksum(
        _ buffer: inout MutableRawSpan, _ payload: Range<Int>, _ protocolNumber: UInt8, delta: UInt16,
        isPartial: Bool
    ) throws(Refusal) {
        guard let (offset, minimum) = IPProtocol.checksumField(protocolNumber) else { return }
        guard payload.count >= minimum else { return try passTruncated(protocolNumber) }
        let field = payload.lowerBound &+ offset
        if protocolNumber == IPProtocol.udp, buffer.bytes.load16(field) == 0 { throw Refusal(.udpChecksumZero) }
        moveChecksum(&buffer, field, protocolNumber, delta: delta, isPartial: isPartial)
    }

    /// TCP and UDP need their checksum adapted; all else is passed on, broken too (RFC 7915 section 4.5).
    private static func passTruncated(_ protocolNumber: UInt8) throws(Refusal) {
        if protocolNumber == IPProtocol.tcp || protocolNumber == IPProtocol.udp { throw Refusal(.transportTruncated) }
    }

    /// RFC 1624: C' = ~(~C + delta); a partial one is not inverted. Zero UDP checksums become 0xffff.
    @inline(__always)
    static func moveChecksum(
        _ buffer: inout MutableRawSpan, _ field: Int, _ protocolNumber: UInt8, delta: UInt16, isPartial: Bool
    ) {
        guard delta != 0 else { return }
        let old = buffer.bytes.load16(field)
        if isPartial { return buffer.store16(Checksum.fold(UInt64(old) &+ UInt64(delta)), field) }
        let new = ~Checksum.fold(UInt64(~old) &+ UInt64(delta))
        let isUDP = protocolNumber == IPProtocol.udp || protocolNumber == IPProtocol.udpLite
        buffer.store16(isUDP && new == 0 ? 0xffff : new, field)
    }

    /// Turns an ICMP echo into an ICMPv6 one under that header: another type, and the pseudo-header in the checksum.
    static func translateEcho(
        _ buffer: inout MutableRawSpan, _ message: Range<Int>, _ result: IPv6Header, isRequest: Bool
    ) {
        let type = isRequest ? ICMP6_ECHO_REQUEST : ICMP6_ECHO_REPLY
        let pseudo = result.addressWords &+ Checksum.pseudoHeader(length: message.count, nextHeader: IPProtocol.icmpv6)
        replaceICMPType(&buffer, message.lowerBound, UInt8(type), gain: Checksum.fold(pseudo))
    }

    /// Turns an ICMPv6 echo that came under that header into an ICMP one.
    static func translateEcho(
        _ buffer: inout MutableRawSpan, _ message: Range<Int>, fromIPv6 header: IPv6Header, type: UInt8
    ) {
        let pseudo = header.addressWords &+ Checksum.pseudoHeader(length: message.count, nextHeader: IPProtocol.icmpv6)
        replaceICMPType(&buffer, message.lowerBound, type, gain: ~Checksum.fold(pseudo))
    }

    /// Writes another ICMP type and adapts the checksum to it and to `gain` more.
    static func replaceICMPType(_ buffer: inout MutableRawSpan, _ start: Int, _ type: UInt8, gain: UInt16) {
        let oldWord = buffer.bytes.load16(start)
        let newWord = UInt16(type) << 8 | oldWord & 0xff
        let sum = UInt64(~buffer.bytes.load16(start + 2)) + UInt64(~oldWord) + UInt64(newWord) + UInt64(gain)
        buffer.store16(newWord, start)
        buffer.store16(~Checksum.fold(sum), start + 2)
    }

    /// The octets of a transport header and one segment of a super-packet.
    static func segmentSize(
        _ protocolNumber: UInt8, _ payload: Range<Int>, _ offload: Offload, _ bytes: RawSpan
    ) -> Int {
        var header = 8
        if protocolNumber == IPProtocol.tcp, payload.count > 12 {
            header = Int(bytes.load8(payload.lowerBound &+ 12) >> 4) &* 4
        }
        return min(payload.count, header &+ Int(offload.gso_size))
    }
}
