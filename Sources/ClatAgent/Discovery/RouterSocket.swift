import CLinux
public import ClatBase
import Glibc

/// A raw ICMPv6 socket that hears Router Advertisements on every interface of the namespace and sends Router
/// Solicitations.
public struct RouterSocket: ~Copyable {
    private let socket: OwnedDescriptor
    private var buffer = [UInt8](repeating: 0, count: RouterAdvertisement.maximumSize + 1)

    /// One received message: an advertisement, or why it is none.
    public struct Message: Sendable {
        /// The interface it came in by.
        public var uplink: Int
        /// What it says.
        public var content: Result<RouterAdvertisement, RouterAdvertisementProblem>
    }

    /// ICMPv6 type of a Router Solicitation (RFC 4861 section 4.1).
    private static let solicitation: UInt8 = 133

    /// To be polled for reading.
    public var descriptor: CInt { socket.rawValue }

    /// Opens it in the calling thread's network namespace.
    public init() throws(SystemError) {
        let socket = OwnedDescriptor(
            adopting: try retrying("open a raw ICMPv6 socket") {
                Glibc.socket(
                    AF_INET6, CInt(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue),
                    CInt(IPPROTO_ICMPV6))
            })
        // The filter (RFC 3542 section 3.2): a set bit blocks; only type 134 passes.
        var filter = icmp6_filter()
        withUnsafeMutableBytes(of: &filter) { bits in
            bits.initializeMemory(as: UInt8.self, repeating: 0xff)
            let words = bits.bindMemory(to: UInt32.self)
            words[Int(RouterAdvertisement.type) >> 5] &= ~(1 << (UInt32(RouterAdvertisement.type) & 31))
        }
        try Self.set(socket, CInt(IPPROTO_ICMPV6), ICMP6_FILTER, filter, "ICMP6_FILTER")
        try Self.set(socket, CInt(IPPROTO_IPV6), IPV6_RECVPKTINFO, CInt(1), "IPV6_RECVPKTINFO")
        try Self.set(socket, CInt(IPPROTO_IPV6), IPV6_RECVHOPLIMIT, CInt(1), "IPV6_RECVHOPLIMIT")
        // A solicitation with any other hop limit is ignored (RFC 4861 section 6.1.1).
        try Self.set(socket, CInt(IPPROTO_IPV6), IPV6_MULTICAST_HOPS, CInt(255), "IPV6_MULTICAST_HOPS")
        try Self.set(socket, CInt(IPPROTO_IPV6), IPV6_MULTICAST_LOOP, CInt(0), "IPV6_MULTICAST_LOOP")
        self.socket = socket
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

    /// The next message; nil where none waits.
    public mutating func receive() throws(SystemError) -> Message? {
        var source = sockaddr_in6()
        // Room for a hop limit and a packet information, each with its header, aligned.
        var control = [10 of UInt64](repeating: 0)
        var hopLimit: CInt = -1
        var index: UInt32 = 0
        let fd = socket.rawValue
        let count = buffer.withUnsafeMutableBytes { bytes in
            withUnsafeMutablePointer(to: &source) { source in
                withUnsafeMutableBytes(of: &control) { control in
                    var vector = iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
                    return withUnsafeMutablePointer(to: &vector) { vector in
                        var header = msghdr()
                        header.msg_name = UnsafeMutableRawPointer(source)
                        header.msg_namelen = socklen_t(MemoryLayout<sockaddr_in6>.size)
                        header.msg_iov = vector
                        header.msg_iovlen = 1
                        header.msg_control = control.baseAddress
                        header.msg_controllen = control.count
                        let count = recvmsg(fd, &header, 0)
                        guard count >= 0 else { return count }
                        var entry = clat_cmsg_first(&header)
                        while let current = entry {
                            if current.pointee.cmsg_level == CInt(IPPROTO_IPV6) {
                                if current.pointee.cmsg_type == IPV6_HOPLIMIT {
                                    hopLimit = clat_cmsg_data(current).loadUnaligned(as: CInt.self)
                                } else if current.pointee.cmsg_type == IPV6_PKTINFO {
                                    index = clat_cmsg_data(current).loadUnaligned(as: in6_pktinfo.self).ipi6_ifindex
                                }
                            }
                            entry = clat_cmsg_next(&header, current)
                        }
                        return count
                    }
                }
            }
        }
        guard count >= 0 else {
            let code = errno
            if code == EAGAIN || code == EINTR { return nil }
            throw SystemError(call: "receive from the raw ICMPv6 socket", code: code)
        }
        let bytes = Array(buffer.prefix(count))
        let content = Result { () throws(RouterAdvertisementProblem) in
            try RouterAdvertisement(message: bytes, from: IPv6Address(source.sin6_addr), hopLimit: Int(hopLimit))
        }
        return Message(uplink: Int(index), content: content)
    }

    /// Sends a Router Solicitation (RFC 4861 section 4.1) to ff02::2, without a source link-layer address option: the
    /// answer may then as well be multicast. It goes out from the link-local address or, as long as DAD of that runs, from
    /// `::`, as section 4.1 allows.
    public func solicit(uplink: Int) throws(SystemError) {
        do throws(SystemError) { try solicitFromAddress(uplink: uplink) } catch {
            guard error.code == EADDRNOTAVAIL else { throw error }
            try Self.solicitFromNowhere(uplink: uplink)
        }
    }

    /// The whole packet, IPv6 header and all: nothing in it depends on the host.
    ///
    ///     version 6, payload of 8 octets, next header 58, hop limit 255
    ///     source ::
    ///     destination ff02::2
    ///     type 133, code 0, checksum, 4 reserved octets
    static let unspecifiedSolicitation: [UInt8] =
        [0x60, 0, 0, 0, 0, 8, 58, 255] + [UInt8](repeating: 0, count: 16)
        + [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2] + [solicitation, 0, 0x7b, 0xb8, 0, 0, 0, 0]

    private static func solicitFromNowhere(uplink: Int) throws(SystemError) {
        let kind = CInt(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        // What is sent by a socket of that protocol brings its IPv6 header along.
        let raw = OwnedDescriptor(
            adopting: try retrying("open a raw IPv6 socket") { Glibc.socket(AF_INET6, kind, CInt(IPPROTO_RAW)) })
        // The routing table is to be asked for some source address all the same, so the socket is given one; it stands
        // nowhere in the packet.
        try set(raw, CInt(IPPROTO_IPV6), IPV6_FREEBIND, CInt(1), "IPV6_FREEBIND")
        let scope = UInt32(truncatingIfNeeded: uplink)
        var source = sockaddr_in6(IPv6Address(high: 0xfe80_0000_0000_0000, low: 0x464), scope: scope)
        var target = sockaddr_in6(.allRouters, scope: scope)
        let fd = raw.rawValue
        let size = socklen_t(MemoryLayout<sockaddr_in6>.size)
        try retrying("bind a raw IPv6 socket") {
            withUnsafePointer(to: &source) { bind(fd, __CONST_SOCKADDR_ARG(__sockaddr_in6__: $0), size) }
        }
        try retrying("send a Router Solicitation from ::") {
            withUnsafePointer(to: &target) {
                sendto(
                    fd, unspecifiedSolicitation, unspecifiedSolicitation.count, 0,
                    __CONST_SOCKADDR_ARG(__sockaddr_in6__: $0), size)
            }
        }
    }

    private func solicitFromAddress(uplink: Int) throws(SystemError) {
        var target = sockaddr_in6(.allRouters, scope: UInt32(truncatingIfNeeded: uplink))
        // Type 133, code 0, checksum (the kernel's), 4 reserved octets.
        let message: [UInt8] = [Self.solicitation, 0, 0, 0, 0, 0, 0, 0]
        try retrying("send a Router Solicitation") {
            withUnsafePointer(to: &target) {
                sendto(
                    socket.rawValue, message, message.count, 0, __CONST_SOCKADDR_ARG(__sockaddr_in6__: $0),
                    socklen_t(MemoryLayout<sockaddr_in6>.size))
            }
        }
    }
}
