import ClatBase
import ClatNetlink
import Glibc

/// The host's IPv4 address and route, which others may take away at any time.
extension Instance {
    /// Takes something away; what somebody else has taken away already has gone as it should.
    func remove(_ body: () throws(NetlinkError) -> Void) throws(NetlinkError) {
        do throws(NetlinkError) { try body() } catch {
            guard [ESRCH, EADDRNOTAVAIL, ENODEV].contains(error.code) else { throw error }
        }
    }

    /// Never by replacing: in IPv4 that takes away whatever is the first of that metric, also somebody else's. That it is there
    /// already is no error: a late notice has told that it went.
    func add(_ route: IPv4Route, besidesOurs: Bool) throws(NetlinkError) {
        let (new, index) = (try ipv4(route), try hostIndex())
        do throws(NetlinkError) {
            if besidesOurs { try host.netlink.appendRoute(new) } else { try host.netlink.addRoute(new) }
        } catch {
            guard error.code == EEXIST,
                try host.netlink.routes(.ipv4).contains(where: { $0.outputIndex == index && IPv4Route($0) == route })
            else { throw error }
        }
    }

    func remove(_ route: IPv4Route) throws(NetlinkError) {
        try remove { () throws(NetlinkError) in try host.netlink.removeRoute(try ipv4(route)) }
    }

    func ipv4(_ address: IPv4Address) throws(NetlinkError) -> InterfaceAddress {
        InterfaceAddress(.v4(address), prefixLength: 32, on: try hostIndex())
    }

    private func ipv4(_ route: IPv4Route) throws(NetlinkError) -> Route {
        Route(
            to: .any(.ipv4), via: .v6(Self.gateway), on: try hostIndex(), metric: UInt32(route.metric), mtu: route.mtu,
            preferredSource: .v4(route.source), origin: RouteOrigin(rawValue: UInt8(IPv4Route.origin)))
    }
}

extension IPv4Route {
    /// From what the kernel lists; nil where it is none of ours.
    init?(_ route: Route) {
        guard route.isDefault, route.table == .main, route.origin.rawValue == UInt8(Self.origin),
            case .v4(let source) = route.preferredSource, let mtu = route.mtu
        else { return nil }
        self.init(metric: Int(route.metric), mtu: mtu, source: source)
    }
}
