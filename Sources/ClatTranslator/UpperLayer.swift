import CLinux
import Glibc

/// What lies under the extension headers of an IPv6 packet.
struct UpperLayer {
    var protocolNumber: UInt8
    /// Where it starts.
    var start: Int
    var fragment: Fragment?

    /// Steps over Hop-by-Hop, Routing and Destination Options headers and a Fragment header (RFC 7915 section 5.1). Each
    /// begins with the next header's number and, but for Fragment, its length in units of 8 octets less one. Only a
    /// transport or ESP may follow a Fragment header. A Routing header with segments left is refused, unless `isRouted`.
    @inline(__always)
    init(
        _ bytes: RawSpan, _ header: IPv6Header, _ packet: Range<Int>, isRouted: Bool = false
    ) throws(Refusal) {
        protocolNumber = header.nextHeader
        start = packet.lowerBound &+ IPv6Header.size
        while IPProtocol.isIPv6Extension(protocolNumber) { try step(bytes, packet, isRouted) }
        guard fragment == nil || protocolNumber != IPProtocol.ah else { throw Refusal(.fragmentExtension) }
    }

    private mutating func step(_ bytes: RawSpan, _ packet: Range<Int>, _ isRouted: Bool) throws(Refusal) {
        guard fragment == nil else { throw Refusal(.fragmentExtension) }
        guard packet.upperBound - start >= 8 else { throw Refusal(.extensionHeaderInvalid) }
        let next = bytes.load8(start)
        if protocolNumber == IPProtocol.fragment {
            fragment = Fragment(bytes.extracting(start..<start + IPv6Header.fragmentHeaderSize))
            start += IPv6Header.fragmentHeaderSize
        } else {
            let length = (Int(bytes.load8(start + 1)) + 1) * 8
            guard packet.upperBound - start >= length else { throw Refusal(.extensionHeaderInvalid) }
            let segmentsLeft = start + 3
            if !isRouted, protocolNumber == IPProtocol.routing, bytes.load8(segmentsLeft) != 0 {
                throw Refusal(
                    .routingHeader,
                    answer: .init(
                        type: UInt8(ICMP6_PARAM_PROB), code: UInt8(ICMP6_PARAMPROB_HEADER),
                        word: UInt32(segmentsLeft - packet.lowerBound)))
            }
            start += length
        }
        protocolNumber = next
    }
}
