import CLinux
import ClatBase
import Glibc

/// The unsolicited Neighbor Advertisement by which a host tells its routers of a new address (RFC 9131 section 6.1.2), so
/// that the first packet back does not wait for them to ask.
enum NeighbourAdvertisement {
    /// Sends one to all routers, from the calling thread's network namespace.
    static func announce(_ address: IPv6Address, at own: HardwareAddress, on index: UInt32) throws(SystemError) {
        let socket = try OwnedDescriptor(
            socket: AF_INET6, .raw, transport: CInt(IPPROTO_ICMPV6), blocking: true, named: "a raw ICMPv6 socket")
        try socket.set(CInt(IPPROTO_IPV6), IPV6_MULTICAST_HOPS, CInt(255), "IPV6_MULTICAST_HOPS")
        try socket.bind(to: address, scope: index)
        try socket.send(message(address, own), to: .allRouters, scope: index, "send a Neighbor Advertisement")
    }

    /// RFC 4861 section 4.4: type 136, code 0, checksum (the kernel's), flags R S O all 0 (RFC 9131 wants no Override), 3
    /// reserved octets, target, and the option Target Link-Layer Address (type 2, length 1).
    static func message(_ target: IPv6Address, _ own: HardwareAddress) -> [UInt8] {
        [UInt8(ND_NEIGHBOR_ADVERT), 0, 0, 0, 0, 0, 0, 0] + target.bytes + [UInt8(ND_OPT_TARGET_LINKADDR), 1] + own.bytes
    }
}
