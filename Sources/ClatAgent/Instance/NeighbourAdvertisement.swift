import CLinux
import ClatBase
import Glibc

/// The unsolicited Neighbor Advertisement by which a host tells its routers of a new address (RFC 9131 section 6.1.2), so
/// that the first packet back does not wait for them to ask.
enum NeighbourAdvertisement {
    /// Sends one to all routers, from the calling thread's network namespace.
    static func announce(_ address: IPv6Address, at own: HardwareAddress, on index: UInt32) throws(SystemError) {
        let kind = CInt(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue)
        let socket = OwnedDescriptor(
            adopting: try retrying("open a raw ICMPv6 socket") { Glibc.socket(AF_INET6, kind, CInt(IPPROTO_ICMPV6)) })
        let fd = socket.rawValue
        var hops: CInt = 255
        try retrying("setsockopt IPV6_MULTICAST_HOPS") {
            setsockopt(
                fd, CInt(IPPROTO_IPV6), IPV6_MULTICAST_HOPS, &hops, socklen_t(MemoryLayout<CInt>.size))
        }
        let size = socklen_t(MemoryLayout<sockaddr_in6>.size)
        var from = sockaddr_in6(address, scope: index)
        _ = try withUnsafePointer(to: &from) { from throws(SystemError) in
            try retrying("bind to \(address)") { bind(fd, __CONST_SOCKADDR_ARG(__sockaddr_in6__: from), size) }
        }
        let message = message(address, own)
        var to = sockaddr_in6(.allRouters, scope: index)
        _ = try withUnsafePointer(to: &to) { to throws(SystemError) in
            try retrying("send a Neighbor Advertisement") {
                sendto(fd, message, message.count, 0, __CONST_SOCKADDR_ARG(__sockaddr_in6__: to), size)
            }
        }
    }

    /// RFC 4861 section 4.4: type 136, code 0, checksum (the kernel's), flags R S O all 0 (RFC 9131 wants no Override), 3
    /// reserved octets, target, and the option Target Link-Layer Address (type 2, length 1).
    static func message(_ target: IPv6Address, _ own: HardwareAddress) -> [UInt8] {
        [136, 0, 0, 0, 0, 0, 0, 0] + target.bytes + [2, 1] + own.bytes
    }
}

extension sockaddr_in6 {
    init(_ address: IPv6Address, scope: UInt32) {
        self.init()
        sin6_family = sa_family_t(AF_INET6)
        sin6_addr = address.in6
        sin6_scope_id = scope
    }
}
