import CLinux
import ClatBase
import Glibc

// ICMP errors of the translator's own (RFC 7915 sections 4.4 and 5.4). The packet they are about stays where it is, and the
// headers are written before it.

extension Translator {
    /// Tells the host, from 192.0.0.8, about its packet; at most 576 octets (RFC 1812 section 4.3.2.3). Never about an ICMP
    /// error or a later fragment (RFC 1812 section 4.3.2.7).
    mutating func answerHost(
        _ answer: Refusal.Answer, _ buffer: inout MutableRawSpan, _ packet: Range<Int>, _ offload: inout Offload,
        _ now: UInt64, _ sink: inout some PacketSink & ~Copyable
    ) {
        guard let header = IPv4Header(buffer.bytes.extracting(packet)), header.fragment.offset == 0 else { return }
        let payload = packet.lowerBound + header.headerLength
        let end = packet.lowerBound + header.totalLength
        if header.protocolNumber == IPProtocol.icmp {
            guard payload < end, ICMPHeader.isQuery(ipv4: buffer.bytes.load8(payload)) else { return }
        }
        guard hostErrors.allow(answer, configuration.errorsPerSecond, now) else {
            return counters.add(to: .errorsSuppressed)
        }
        if offload.needsChecksum { offload.finishChecksum(&buffer, packet: packet.lowerBound..<end) }
        let message = packet.lowerBound - ICMPHeader.size
        let messageEnd = min(end, packet.lowerBound + 576 - IPv4Header.size - ICMPHeader.size)
        ICMPHeader.store(answer.type, answer.code, answer.word, into: &buffer, message..<messageEnd, plus: 0)
        let start = message - IPv4Header.size
        // Precedence 6, as routers' messages have (RFC 1812 section 4.3.2.5).
        IPv4Header(
            trafficClass: 0xc0, totalLength: messageEnd - start, identification: nextIdentification, fragmentField: 0,
            ttl: 64 &+ configuration.kernelHops, protocolNumber: IPProtocol.icmp, source: ErrorTranslation.dummy,
            destination: header.source
        ).store(into: &buffer, at: start)
        nextIdentification &+= 1
        Offload().store(into: &buffer, at: start - Offload.size)
        counters.add(to: .errorsToHost)
        sink.send(buffer.bytes.extracting(start - Offload.size..<messageEnd))
    }

    /// Tells a node of the network, from the address that it wrote to, about its packet; at most 1280 octets. Never about an
    /// ICMPv6 error (RFC 4443 section 2.4 (e)), and once for all fragments of a packet: with the first.
    mutating func answerNetwork(
        _ answer: Refusal.Answer, _ buffer: inout MutableRawSpan, _ packet: Range<Int>, _ offload: inout Offload,
        _ now: UInt64, _ sink: inout some PacketSink & ~Copyable
    ) {
        guard let header = IPv6Header(buffer.bytes.extracting(packet)) else { return }
        let end = packet.lowerBound + IPv6Header.size + header.payloadLength
        // Also behind the Routing header that is refused; where that cannot be told, silence.
        guard let upper = try? UpperLayer(buffer.bytes, header, packet.lowerBound..<end, isRouted: true),
            upper.fragment?.offset ?? 0 == 0
        else { return }
        if upper.protocolNumber == IPProtocol.icmpv6 {
            guard upper.start < end, !ICMPHeader.isError(ipv6: buffer.bytes.load8(upper.start)) else { return }
        }
        guard networkErrors.allow(answer, configuration.errorsPerSecond, now) else {
            return counters.add(to: .errorsSuppressed)
        }
        if offload.needsChecksum { offload.finishChecksum(&buffer, packet: packet.lowerBound..<end) }
        let message = packet.lowerBound - ICMPHeader.size
        let messageEnd = min(end, packet.lowerBound + 1280 - IPv6Header.size - ICMPHeader.size)
        let reply = IPv6Header(
            trafficClass: 0, payloadLength: messageEnd - message, nextHeader: IPProtocol.icmpv6,
            hopLimit: 64 &+ configuration.kernelHops, sourceHigh: header.destinationHigh,
            sourceLow: header.destinationLow, destinationHigh: header.sourceHigh, destinationLow: header.sourceLow)
        let pseudo = Checksum.pseudoHeader(length: reply.payloadLength, nextHeader: IPProtocol.icmpv6)
        ICMPHeader.store(
            answer.type, answer.code, answer.word, into: &buffer, message..<messageEnd,
            plus: reply.addressWords + pseudo)
        let start = message - IPv6Header.size
        reply.store(into: &buffer, at: start)
        Offload().store(into: &buffer, at: start - Offload.size)
        counters.add(to: .errorsToNetwork)
        sink.send(buffer.bytes.extracting(start - Offload.size..<messageEnd))
    }
}

/// How many errors go to one side: those about a packet's size, and all others.
struct ErrorLimits: Sendable {
    private var sizes = RateLimit()
    private var others = RateLimit()

    mutating func allow(_ answer: Refusal.Answer, _ perSecond: UInt32, _ now: UInt64) -> Bool {
        let isFragmentationNeeded = answer.type == UInt8(ICMP_DEST_UNREACH) && answer.code == UInt8(ICMP_FRAG_NEEDED)
        let isAboutSize = isFragmentationNeeded || answer.type == UInt8(ICMP6_PACKET_TOO_BIG)
        return isAboutSize ? sizes.allows(perSecond, now: now) : others.allows(perSecond, now: now)
    }
}
