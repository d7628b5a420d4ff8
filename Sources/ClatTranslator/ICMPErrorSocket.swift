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
        let kind = CInt(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let owner = OwnedDescriptor(
            adopting: try retrying("open a raw ICMPv6 socket") { socket(AF_INET6, kind, CInt(IPPROTO_ICMPV6)) })
        // The filter (RFC 3542 section 3.2): a set bit blocks. Types 1 to 4 pass.
        var filter = icmp6_filter()
        withUnsafeMutableBytes(of: &filter) { bits in
            bits.initializeMemory(as: UInt8.self, repeating: 0xff)
            bits.storeBytes(of: ~0b11110, as: UInt32.self)
        }
        try Self.set(owner, CInt(IPPROTO_ICMPV6), ICMP6_FILTER, filter, "ICMP6_FILTER")
        try Self.set(owner, CInt(IPPROTO_IPV6), IPV6_RECVPKTINFO, CInt(1), "IPV6_RECVPKTINFO")
        try Self.set(owner, CInt(IPPROTO_IPV6), IPV6_RECVHOPLIMIT, CInt(1), "IPV6_RECVHOPLIMIT")
        try Self.set(owner, CInt(IPPROTO_IPV6), IPV6_RECVTCLASS, CInt(1), "IPV6_RECVTCLASS")
        self.owner = owner
    }

    private static func set<Value: BitwiseCopyable>(
        _ socket: borrowing OwnedDescriptor, _ level: CInt, _ option: CInt, _ value: Value, _ name: String
    ) throws(SystemError) {
        let fd = socket.rawValue
        try withUnsafePointer(to: value) { value throws(SystemError) in
            _ = try retrying("setsockopt \(name)") {
                setsockopt(fd, level, option, value, socklen_t(MemoryLayout<Value>.size))
            }
        }
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
        // Room for a packet information, a hop limit and a traffic class, each with its header, aligned.
        var control = [16 of UInt64](repeating: 0)
        var ancillary = Ancillary()
        let count = withUnsafeMutablePointer(to: &source) { source in
            withUnsafeMutableBytes(of: &control) { control in
                var vector = iovec(iov_base: base + start, iov_len: frame.count - start)
                return withUnsafeMutablePointer(to: &vector) { vector in
                    var message = msghdr()
                    message.msg_name = UnsafeMutableRawPointer(source)
                    message.msg_namelen = socklen_t(MemoryLayout<sockaddr_in6>.size)
                    message.msg_iov = vector
                    message.msg_iovlen = 1
                    message.msg_control = control.baseAddress
                    message.msg_controllen = control.count
                    let count = recvmsg(descriptor, &message, 0)
                    if count >= 0 { ancillary = Ancillary(&message) }
                    return count
                }
            }
        }
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

        init() {}

        init(_ message: inout msghdr) {
            var entry = clat_cmsg_first(&message)
            while let current = entry {
                if current.pointee.cmsg_level == CInt(IPPROTO_IPV6) { take(current) }
                entry = clat_cmsg_next(&message, current)
            }
        }

        private mutating func take(_ entry: UnsafeMutablePointer<cmsghdr>) {
            guard let data = clat_cmsg_data(entry) else { return }
            switch entry.pointee.cmsg_type {
            case IPV6_PKTINFO: destination = IPv6Address(data.loadUnaligned(as: in6_pktinfo.self).ipi6_addr)
            case IPV6_HOPLIMIT: hopLimit = UInt8(clamping: data.loadUnaligned(as: CInt.self))
            case IPV6_TCLASS: trafficClass = UInt8(clamping: data.loadUnaligned(as: CInt.self))
            default: break
            }
        }
    }
}
