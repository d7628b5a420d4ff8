import ClatBase
import ClatNetlink
import ClatTranslator

/// Taking over what a process before this one has built.
extension Instance {
    /// The descriptors by which it is taken over, and left. All are the receiver's.
    struct Descriptors {
        var namespace: CInt
        var tun: CInt
        /// Of the programs of uplink, TUN and host; none where they need none.
        var links: [CInt]
        /// Of what guards the host's own uplink.
        var uplinkGuard: CInt?
        /// Of the relay, if there is one: its TAP, and the sockets on the uplink.
        var relay: [CInt]
    }

    /// What the next process needs; nil where there is no translator.
    var descriptors: Descriptors? {
        guard let namespace = namespaceDescriptor, let packets else { return nil }
        let (tun, links) = packets.descriptors
        let uplinkGuard = uplink.flatMap { host.guards[$0]?.descriptor }
        return Descriptors(
            namespace: namespace, tun: tun, links: links, uplinkGuard: uplinkGuard, relay: relay?.descriptors ?? [])
    }

    /// How packets find their way; nil where there is no translator.
    var steering: SteeringKind? { packets?.steering }

    /// Takes over what `entry` tells of, and begins to carry packets at once. What comes back is what stands, as the kernel
    /// says; addresses and routes need not be what was left, but devices must.
    func adopt(
        _ entry: Handover.Entry, namespace: consuming OwnedDescriptor, tun: consuming OwnedDescriptor, links: [CInt],
        relay: [CInt], datapath: Datapath
    ) throws -> Standing {
        let place = try Place(NetworkNamespace(adopting: namespace))
        self.place = place
        let link = try Self.find(Self.uplinkLinkName, in: place)
        let kind: UplinkLinkKind
        if entry.standing.uplinkLink == .relay {
            kind = .relay
            try adoptRelay(relay, on: UInt32(clamping: entry.index), place)
        } else if let stacked = link.kind.flatMap(UplinkLinkKind.init), link.parent.map(Int.init) == entry.index {
            kind = stacked
        } else {
            throw Failure(description: "the CLAT's link is not on \(entry.name)")
        }
        let peer = try Self.find(Self.hostPeerName, in: place)
        guard let index = entry.standing.hostLink.flatMap(UInt32.init(exactly:)),
            let device = try host.netlink.link(index: index), device.kind == "veth", peer.kind == "veth",
            device.parent == peer.index, peer.parent == device.index, device.flags.contains(.up)
        else { throw Failure(description: "the host's IPv4 device has gone or is down") }
        (uplinkLink, hostLink, hostLinkPeer) = (link, device, peer)
        (uplink, uplinkNote) = (UInt32(clamping: entry.index), entry.uplinkNote)
        let (ends, configuration) = (try ends(), entry.translator)
        let relics = PacketPath.Relics(steering: entry.steering, tun: tun, links: links)
        packets = try place.namespace.run {
            try PacketPath(ends, configuration: configuration, datapath: datapath, adopting: relics)
        }
        overflowsBefore = queueOverflows() ?? 0
        try host.netlink.replaceNeighbour(Neighbour(.v6(Self.gateway), at: peer.hardwareAddress, on: device.index))
        let (standing, surplus) = try standing(kind, link: link, device: device, peer: peer, place)
        for route in surplus { try host.netlink.removeRoute(route) }
        return standing
    }

    /// Takes away what cannot be taken over. Otherwise the kernel would, but a moment later: until then nothing that replaces
    /// it can have its addresses.
    static func dismantle(_ namespace: consuming OwnedDescriptor) {
        guard let place = try? Place(NetworkNamespace(adopting: namespace)) else { return }
        dismantle(place)
    }

    /// The same of one that was looked at.
    func abandon() {
        (packets, relay) = (nil, nil)
        if let place { Self.dismantle(place) }
    }

    private static func dismantle(_ place: Place) {
        for name in [hostPeerName, uplinkLinkName] {
            if let link = try? place.netlink.link(named: name) { try? place.netlink.deleteLink(link.index) }
        }
    }

    private static func find(_ name: String, in place: Place) throws -> Link {
        guard let link = try place.netlink.link(named: name) else { throw Failure(description: "\(name) has gone") }
        guard link.flags.contains(.up) else { throw Failure(description: "\(name) is down") }
        return link
    }

    /// What stands, by the kernel's own lists, and the host's IPv4 routes that should not: of two one was to go.
    private func standing(
        _ kind: UplinkLinkKind, link: Link, device: Link, peer: Link, _ place: Place
    ) throws -> (Standing, surplus: [Route]) {
        var standing = Standing()
        standing.hasNamespace = true
        standing.uplinkLink = kind
        standing.isModeStolen = Self.isModeStolen(link)
        standing.hostLink = Int(device.index)
        standing.hostLinkMTU = min(device.mtu, peer.mtu)
        for address in try place.netlink.addresses(.ipv6, on: link.index) {
            guard case .v6(let value) = address.address, !value.isLinkLocal else { continue }
            standing.addresses[value] = AddressPhase(address.flags)
        }
        for address in standing.addresses.keys { try beginRelaying(address) }
        if standing.addresses.values.contains(.tentative) { standing.addressAdded = .now }
        routing = try routing(of: link, place)
        standing.routing = routing
        for address in try host.netlink.addresses(.ipv4, on: device.index) {
            if case .v4(let value) = address.address { standing.ipv4s.insert(value) }
        }
        var surplus: [Route] = []
        for route in try host.netlink.routes(.ipv4)
        where route.isDefault && route.table == .main && route.outputIndex == device.index {
            guard let ours = IPv4Route(route), standing.route == nil else {
                surplus.append(route)
                continue
            }
            standing.route = ours
        }
        return (standing, surplus)
    }

    /// The way out of the namespace; nil where there is none.
    private func routing(of link: Link, _ place: Place) throws -> Routing? {
        var router: IPv6Address?
        var onLink: [IPv6Prefix] = []
        for route in try place.netlink.routes(.ipv6)
        where route.table == .main && route.kind == .unicast && route.outputIndex == link.index {
            guard case .v6(let destination) = route.destination.address else { continue }
            if route.gateway == nil, route.metric == 256, route.origin == .static,
                let prefix = IPv6Prefix(destination, length: route.destination.length)
            {
                onLink.append(prefix)
            } else if route.isDefault {
                if case .v6(let gateway) = route.gateway { router = gateway } else { router = .unspecified }
            }
        }
        return router.map {
            Routing(
                router: $0, hardwareAddress: nil,
                onLink: onLink.sorted { ($0.address, $0.length) < ($1.address, $1.length) })
        }
    }
}
