import ClatBase
import ClatNetlink

/// The kernel's words in the words of the mind.
enum HostMirror {
    /// Links, addresses and default routes as they are now.
    static func snapshot(_ netlink: inout NetlinkSocket) throws(NetlinkError) -> Host {
        var host = Host()
        for link in try netlink.links() {
            host.links[Int(link.index)] = Uplink(link)
        }
        let addresses = try netlink.addresses()
        host.addresses = Set(addresses.map(HostAddress.init))
        host.tentative = Set(addresses.filter(\.isUnusable).map(HostAddress.init))
        host.defaultRoutes = try defaultRoutes(&netlink)
        return host
    }

    /// Those of both families.
    static func defaultRoutes(_ netlink: inout NetlinkSocket) throws(NetlinkError) -> Set<DefaultRoute> {
        Set((try netlink.routes(.ipv4) + netlink.routes(.ipv6)).flatMap(DefaultRoute.all))
    }

    /// What a notice means; nothing where it means nothing to us.
    static func events(_ notice: Notice) -> [Event] {
        switch notice {
        case .link(let link, let removed): [removed ? .linkGone(Int(link.index)) : .link(Uplink(link))]
        case .associated(let index): [.associated(uplink: Int(index))]
        case .address(let address, let removed):
            [
                removed
                    ? .addressGone(HostAddress(address))
                    : .address(HostAddress(address), isTentative: address.isUnusable)
            ]
        case .route(let route, let removed, _):
            DefaultRoute.all(in: route).map { removed ? .routeGone($0) : .route($0) }
        case .neighbour, .overrun, .malformed: []
        }
    }
}

extension Uplink {
    init(_ link: Link) {
        let medium: Medium =
            if link.flags.contains(.loopback) {
                .loopback
            } else if link.isRawIP {
                .pointToPoint
            } else if !link.isEthernet {
                .other
            } else {
                link.isWireless ? .wireless : .ethernet
            }
        self.init(
            index: Int(link.index), name: link.name, medium: medium, kind: link.kind ?? "",
            isUp: link.flags.contains(.up), isRunning: link.flags.isSuperset(of: [.up, .lowerUp]),
            carrierLosses: Int(link.carrierLosses), mtu: link.mtu, hardwareAddress: link.hardwareAddress,
            master: link.master.map(Int.init))
        isOperational = link.flags.contains(.running)
        noARP = link.flags.contains(.noARP)
    }
}

extension InterfaceAddress {
    /// Nothing can be sent from it: DAD runs or has failed.
    fileprivate var isUnusable: Bool {
        flags.contains(.dadFailed) || flags.contains(.tentative) && !flags.contains(.optimistic)
    }
}

extension HostAddress {
    init(_ address: InterfaceAddress) {
        self.init(
            index: Int(address.index), value: address.address, prefixLength: Int(address.prefixLength),
            peer: address.peer)
    }
}

extension DefaultRoute {
    /// One for each hop of a default route of the main table.
    static func all(in route: Route) -> [DefaultRoute] {
        guard route.destination.length == 0, route.table == .main, !route.flags.contains(.cloned) else { return [] }
        let hops: [(UInt32, IPAddress?)] =
            if !route.isDefault {
                [(0, nil)]
            } else if let index = route.outputIndex {
                [(index, route.gateway)]
            } else {
                route.nextHops.map { ($0.outputIndex, $0.gateway) }
            }
        let isIPv6 = route.family == .ipv6
        let source: IPv4Address? =
            if case .v4(let address) = route.preferredSource { address } else { nil }
        return hops.map { index, gateway in
            DefaultRoute(
                isIPv6: isIPv6, index: Int(index), metric: Int(route.metric), origin: Int(route.origin.rawValue),
                gateway: gateway, source: source, mtu: isIPv6 ? nil : route.mtu)
        }
    }
}
