import ClatBase
import ClatNetlink
import ClatTranslator
import Glibc

/// Uplinks on which there can be no ipvlan: a TAP in the namespace, and a relay between it and the uplink.
extension Instance {
    /// Nobody has this address; a permanent neighbour entry puts it behind the veth at a hardware address that nobody has.
    private static let nowhere = IPv6Address(high: 0xfe80_0000_0000_0000, low: 0x466)
    private static let nobody = HardwareAddress(rawValue: 0x0200_0000_0466)

    /// Makes both; no address is relayed yet.
    func createRelay(on parent: UInt32, _ place: Place) throws -> UplinkLinkKind {
        let framing = try framing(of: parent)
        let sockets = try UplinkSockets(on: parent, framing)
        relay = try place.namespace.run {
            try UplinkRelay(
                TUNDevice(name: Instance.uplinkLinkName, kind: .tap, offloads: framing.offloads), sockets)
        }
        uplinkNote =
            framing == .none || framing == .ppp
            ? "a link of IP packets alone has no place for an ipvlan"
            : "on this link nobody tells hardware addresses (NOARP)"
        return .relay
    }

    private func framing(of uplink: UInt32) throws -> LinkFraming {
        guard let link = try host.netlink.link(index: uplink) else { throw Failure(description: "the uplink has gone") }
        guard link.isRawIP else {
            guard let own = link.hardwareAddress else {
                throw Failure(description: "the uplink has no Ethernet address")
            }
            return .ethernet(own)
        }
        return link.isPPP ? .ppp : .none
    }

    /// Has packets for a CLAT address relayed, where there is a relay. The host's own stack sees a copy of each. Where that
    /// forwards it would send them back to the router, so a route leads them away, to the end of the veth where nothing takes
    /// IPv6. Like the veth it goes with the process.
    func beginRelaying(_ address: IPv6Address) throws {
        guard let relay else { return }
        try host.netlink.replaceNeighbour(Neighbour(.v6(Self.nowhere), at: Self.nobody, on: try hostIndex()))
        try host.netlink.replaceRoute(try detour(address))
        relayed.insert(address)
        try relay.carry(relayed.sorted())
    }

    /// Undoes that.
    func endRelaying(_ address: IPv6Address) throws {
        guard let relay else { return }
        relayed.remove(address)
        try relay.carry(relayed.sorted())
        try remove { () throws(NetlinkError) in try host.netlink.removeRoute(try detour(address)) }
    }

    private func detour(_ address: IPv6Address) throws(NetlinkError) -> Route {
        Route(
            to: IPPrefix(.v6(address)), via: .v6(Self.nowhere), on: try hostIndex(), metric: 1024,
            origin: RouteOrigin(rawValue: UInt8(IPv4Route.origin)))
    }

    /// An ipvlan follows its uplink by itself; a TAP is told.
    func setRelayMTU(_ mtu: Int) throws {
        guard relay != nil else { return }
        try here().netlink.setMTU(mtu, ofLink: try uplinkIndex())
    }

    /// Goes on with what another process has left: TAP, and sockets in which packets have waited. The descriptors stay the
    /// caller's.
    func adoptRelay(_ descriptors: [CInt], on uplink: UInt32, _ place: Place) throws {
        guard descriptors.count == 3 else { throw Failure(description: "a descriptor of the relay is missing") }
        let framing = try framing(of: uplink)
        let sockets = try UplinkSockets(
            adopting: Self.duplicate(descriptors[1]), Self.duplicate(descriptors[2]), on: uplink, framing)
        relay = try place.namespace.run {
            let tap = try TUNDevice(
                adopting: Instance.duplicate(descriptors[0]), kind: .tap, offloads: framing.offloads)
            return try UplinkRelay(tap, sockets)
        }
    }

    private static func duplicate(_ descriptor: CInt) throws(SystemError) -> OwnedDescriptor {
        OwnedDescriptor(adopting: try retrying("fcntl F_DUPFD_CLOEXEC") { fcntl(descriptor, F_DUPFD_CLOEXEC, 3) })
    }

    /// Has packets wait, that none is under way when the process becomes another program; and lets them go on.
    func pause() {
        packets?.pause()
        relay?.pause()
    }

    func resume() {
        relay?.resume()
        packets?.resume()
    }
}
