import CLinux
public import ClatBase
import Glibc

/// A raw ICMPv6 socket that hears the errors which the namespace's own stack is given, where no eBPF program can tell those
/// about the translator's packets from others.
public struct ICMPErrorSocket: ~Copyable, Sendable {
    private let owner: OwnedDescriptor

    /// To be polled for reading.
    var descriptor: CInt { owner.rawValue }

    /// Opens it in the calling thread's network namespace. Needs CAP_NET_RAW.
    public init() throws(SystemError) {
        let owner = try OwnedDescriptor(
            socket: AF_INET6, .raw, transport: CInt(IPPROTO_ICMPV6), named: "a raw ICMPv6 socket")
        // These and what is between them: packet too big, time exceeded.
        try owner.hearOnly(icmpv6: UInt8(ICMP6_DST_UNREACH)...UInt8(ICMP6_PARAM_PROB))
        try owner.set(CInt(IPPROTO_IPV6), IPV6_RECVPKTINFO, CInt(1), "IPV6_RECVPKTINFO")
        try owner.set(CInt(IPPROTO_IPV6), IPV6_RECVHOPLIMIT, CInt(1), "IPV6_RECVHOPLIMIT")
        try owner.set(CInt(IPPROTO_IPV6), IPV6_RECVTCLASS, CInt(1), "IPV6_RECVTCLASS")
        self.owner = owner
    }

    /// Reads the next message and writes it as the frame that the TUN would have brought: a `virtio_net_hdr` that asks for
    /// nothing, an IPv6 header without extension headers, and the message. Its hop limit is one less than what arrived, as
    /// if the kernel had forwarded it to the TUN.
    ///
    /// - Returns: the frame's octets; -1 and errno as recvmsg(2), so EAGAIN where none waits.
    func receive(into frame: UnsafeMutableRawBufferPointer) -> Int {
        let start = Offload.size + IPv6Header.size
        guard frame.count > start, let base = frame.baseAddress else {
            errno = EINVAL
            return -1
        }
        var source = sockaddr_in6()
        var ancillary = Ancillary()
        let room = UnsafeMutableRawBufferPointer(start: base + start, count: frame.count - start)
        let count = owner.receive(into: room, from: &source) { ancillary.take($0) }
        guard count >= 0 else { return count }
        let from = IPv6Address(source.sin6_addr)
        let header = IPv6Header(
            trafficClass: ancillary.trafficClass, payloadLength: count, nextHeader: IPProtocol.icmpv6,
            hopLimit: ancillary.hopLimit - min(ancillary.hopLimit, 1), sourceHigh: from.high, sourceLow: from.low,
            destinationHigh: ancillary.destination.high, destinationLow: ancillary.destination.low)
        var bytes = frame.mutableBytes
        Offload().store(into: &bytes, at: 0)
        header.store(into: &bytes, at: Offload.size)
        return start + count
    }

    /// What the kernel tells of the header.
    private struct Ancillary {
        var destination = IPv6Address.unspecified
        var hopLimit: UInt8 = 0
        var trafficClass: UInt8 = 0

        mutating func take(_ data: AncillaryData) {
            switch (data.level, data.type) {
            case (CInt(IPPROTO_IPV6), IPV6_PKTINFO):
                if let information = data.load(as: in6_pktinfo.self) {
                    destination = IPv6Address(information.ipi6_addr)
                }
            case (CInt(IPPROTO_IPV6), IPV6_HOPLIMIT): hopLimit = UInt8(clamping: data.load(as: CInt.self) ?? 0)
            case (CInt(IPPROTO_IPV6), IPV6_TCLASS): trafficClass = UInt8(clamping: data.load(as: CInt.self) ?? 0)
            default: break
            }
        }
    }
}
