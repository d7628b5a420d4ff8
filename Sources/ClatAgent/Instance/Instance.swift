import ClatBase
import ClatNetlink
import ClatTranslator
import Glibc

/// What an instance needs of the host: a netlink socket in its namespace.
final class HostKernel {
    var netlink: NetlinkSocket
    /// By interface index: what keeps an uplink clean on which there is a CLAT, or was.
    private(set) var guards: [UInt32: UplinkGuard] = [:]
    /// Times that the kernel had more to tell than could wait, in the host's namespace and in those of instances.
    var overruns = 0
    /// Notices that could not be read.
    var malformed = 0

    init() throws(NetlinkError) {
        netlink = try NetlinkSocket()
    }

    /// Has an uplink guarded from now on, before the host has an address that could leak; by what was inherited, if it was.
    func keepGuard(of uplink: UInt32, inherited: consuming OwnedDescriptor? = nil) throws {
        guard guards[uplink] == nil, let name = try netlink.link(index: uplink)?.name else { return }
        guards[uplink] = try UplinkGuard(uplink: uplink, name: name, inherited: inherited)
    }

    /// Ends that.
    func releaseGuard(of uplink: UInt32) {
        guards[uplink] = nil
    }
}

/// Carries out the steps of one uplink's CLAT and owns what they make: namespace, links, translator. It decides
/// nothing.
///
/// Whatever becomes of the agent, the kernel takes the namespace away with the last descriptor, and all else with the
/// namespace.
final class Instance {
    let host: HostKernel
    var place: Place?
    var uplinkLink: Link?
    var hostLink: Link?
    var hostLinkPeer: Link?
    var packets: PacketPath?
    var routing: Routing?
    var uplink: UInt32?
    /// Where the uplink carries no ipvlan, what moves packets, and for which addresses.
    var relay: UplinkRelay?
    var relayed: Set<IPv6Address> = []

    /// Whether notices were lost, and what they told has not been listed yet.
    private(set) var isBehind = false
    /// Why the uplink link is no ipvlan, and why nothing guards the uplink.
    var uplinkNote: String?
    /// How packets go.
    var datapath: DatapathStatus? { packets?.status }
    /// How many went, and how many did not.
    var counters: [String: UInt64] {
        var all = packets?.counters ?? [:]
        if !all.isEmpty {
            all["leaks-stopped"] = uplink.flatMap { host.guards[$0]?.stopped }
            all["queue-overflows"] = queueOverflows().map { $0 &- overflowsBefore }
        }
        if let faults = relay?.faults {
            all["relay-read-faults"] = faults.reads
            all["relay-write-faults"] = faults.writes
            all["relay-lost"] = faults.lost
        }
        return all
    }
    /// Those of the TUN's queue that were counted before the rest began to be.
    var overflowsBefore: UInt64 = 0
    /// Since when; nil where there is nothing to count.
    var countersStarted: BootInstant? { packets?.started }
    /// To be polled for reading: ready once the packet thread has ended by itself; nil where there is none.
    var translatorEndDescriptor: CInt? { packets?.endDescriptor }
    /// Why the packet thread ended by itself, if it did.
    var translatorEnd: String? { packets?.end }

    /// The next hop of the host's IPv4 route: nobody has this address, a permanent neighbour entry tells where it is.
    static let gateway = IPv6Address(high: 0xfe80_0000_0000_0000, low: 0x464)
    static let uplinkLinkName = "clat-uplink"
    static let hostPeerName = "clat-host"

    init(host: HostKernel) {
        self.host = host
    }

    /// The namespace, and what speaks to the kernel in it.
    final class Place {
        let namespace: NetworkNamespace
        var netlink: NetlinkSocket
        var monitor: NetlinkMonitor

        init(_ namespace: consuming NetworkNamespace) throws(NetlinkError) {
            netlink = try NetlinkSocket(in: namespace)
            monitor = try NetlinkMonitor([.links, .addresses, .neighbours], in: namespace)
            self.namespace = namespace
        }
    }

    /// A step that could not be carried out, in words.
    struct Failure: Error, CustomStringConvertible {
        var description: String
    }

    /// Carries a step out.
    func carryOut(_ step: Step, _ configuration: Configuration) throws -> StepResult {
        switch step {
        case .createNamespace: try createNamespace(optimisticDAD: configuration.optimisticDAD)
        case .createUplinkLink(let parent, let attachment, let address):
            return .uplinkLink(try createUplinkLink(on: UInt32(parent), attachment, address))
        case .restoreMode: try here().netlink.setMode(.l2, ofIPvlan: try uplinkIndex())
        case .setHostLinkMTU(let mtu): try setHostLinkMTU(mtu)
        case .createHostLink(let name, let mtu): return .hostLink(index: try createHostLink(name, mtu: mtu))
        case .addAddress(let address):
            try beginRelaying(address)
            let flags: AddressFlags = configuration.optimisticDAD ? [.optimistic] : []
            try here().netlink.addAddress(
                InterfaceAddress(.v6(address), prefixLength: 128, on: try uplinkIndex(), flags: flags))
        case .removeAddress(let address):
            let (place, index) = (try here(), try uplinkIndex())
            try remove { () throws(NetlinkError) in
                try place.netlink.removeAddress(InterfaceAddress(.v6(address), prefixLength: 128, on: index))
            }
            try endRelaying(address)
        case .setRouting(let routing): try set(routing)
        case .announce(let address): try announce(address)
        case .startTranslator(let translator):
            try setRelayMTU(translator.ipv6MTU)
            try startTranslator(translator, configuration.datapath)
        case .updateTranslator(let translator):
            try setRelayMTU(translator.ipv6MTU)
            try packets?.update(translator)
        case .addIPv4Address(let address): try host.netlink.replaceAddress(try ipv4(address))
        case .removeIPv4Address(let address):
            try remove { () throws(NetlinkError) in try host.netlink.removeAddress(try ipv4(address)) }
        case .setIPv4Route(let route, let replacing):
            try add(route, besidesOurs: replacing?.metric == route.metric)
            if let replacing { try remove(replacing) }
        case .removeIPv4Route(let route): try remove(route)
        case .stopTranslator: stopTranslator()
        case .removeHostLink:
            let index = hostLink?.index
            (hostLink, hostLinkPeer) = (nil, nil)
            if let index { try remove { () throws(NetlinkError) in try host.netlink.deleteLink(index) } }
        case .removeUplinkLink:
            let index = uplinkLink?.index
            (uplinkLink, routing, uplinkNote) = (nil, nil, nil)
            // Somebody may hold copies of the relay's descriptors, so letting go is not enough.
            defer { (relay, relayed) = (nil, []) }
            let place = try here()
            if let index { try remove { () throws(NetlinkError) in try place.netlink.deleteLink(index) } }
        case .closeNamespace:
            relay = nil
            packets = nil
            place = nil
        }
        return .done
    }

    // MARK: Namespace

    private func createNamespace(optimisticDAD: Bool) throws {
        let new: NetworkNamespace
        do throws(SystemError) { new = try NetworkNamespace.create() } catch {
            guard error.code == EINVAL else { throw error }
            throw Failure(
                description: "the kernel has no network namespaces; it takes one that is built with CONFIG_NET_NS")
        }
        try new.run {
            // Links are born with these. The router's advertisements are read on the uplink, not here; nothing is
            // routed here.
            try Sysctl.write("0", to: "ipv6/conf/default/accept_ra")
            try Sysctl.write("0", to: "ipv6/conf/default/autoconf")
            // When the uplink's hardware address changes the neighbours are told (RFC 4861 section 7.2.6). Nothing else
            // would: the next Router Advertisement keeps us from soliciting the router, and so it from learning of us.
            try Sysctl.write("1", to: "ipv6/conf/default/ndisc_notify")
            // The random delay before DAD is for links that all come up at once (RFC 4862 section 5.4.2); this one is
            // up already.
            try Sysctl.write("0", to: "ipv6/conf/default/router_solicitation_delay")
            if optimisticDAD {
                // Absent where the kernel was built without CONFIG_IPV6_OPTIMISTIC_DAD; the address then waits a
                // second.
                try? Sysctl.write("1", to: "ipv6/conf/default/optimistic_dad")
                // Only with this one does the kernel tell when the address is in optimistic use.
                try? Sysctl.write("1", to: "ipv6/conf/default/use_optimistic")
            }
        }
        let place = try Place(new)
        if let loopback = try place.netlink.link(named: "lo") { try place.netlink.setLink(loopback.index, up: true) }
        self.place = place
    }

    /// The namespace; a step without one came too late.
    func here() throws(Failure) -> Place {
        guard let place else { throw Failure(description: "there is no namespace") }
        return place
    }

    /// To be entered by those who look into it; nil where there is none.
    var namespaceDescriptor: CInt? { place?.namespace.descriptor }

    /// To be polled for notices of the namespace; nil where there is none.
    var monitorDescriptor: CInt? { place?.monitor.descriptor }

    /// What the kernel says of the CLAT's link and addresses, as events about that uplink. Empty where nothing waits.
    func notices(uplink: Int) throws -> [Event] {
        var events: [Event] = []
        do throws(NetlinkError) {
            while let notice = try place?.monitor.next() {
                switch notice {
                case .address(let address, let removed):
                    if let event = event(address, removed: removed, uplink: uplink) { events.append(event) }
                case .link(let link, let removed) where link.index == uplinkLink?.index:
                    events.append(removed ? .clatLinkGone(uplink: uplink) : Self.event(link, uplink: uplink))
                case .neighbour(let neighbour, removed: false)
                where neighbour.state.contains(.failed) && neighbour.index == uplinkLink?.index:
                    if case .v6(let address) = neighbour.address {
                        events.append(.unreachable(address, uplink: uplink))
                    }
                case .overrun:
                    isBehind = true
                    host.overruns += 1
                case .malformed: host.malformed += 1
                default: break
                }
            }
        } catch {
            isBehind = true
            throw error
        }
        if isBehind, let index = uplinkLink?.index {
            let place = try here()
            var listed: [IPv6Address: AddressPhase] = [:]
            for address in try place.netlink.addresses(.ipv6, on: index) {
                if case .v6(let value) = address.address { listed[value] = AddressPhase(address.flags) }
            }
            events.append(.clatAddresses(listed, uplink: uplink))
            let link = try place.netlink.link(index: index)
            events.append(link.map { Self.event($0, uplink: uplink) } ?? .clatLinkGone(uplink: uplink))
        }
        isBehind = false
        return events
    }

    private func event(_ address: InterfaceAddress, removed: Bool, uplink: Int) -> Event? {
        guard case .v6(let value) = address.address, address.index == uplinkLink?.index, !value.isLinkLocal else {
            return nil
        }
        return .clatAddress(value, removed ? .vanished : AddressPhase(address.flags), uplink: uplink)
    }

    private static func event(_ link: Link, uplink: Int) -> Event {
        .clatLink(isModeStolen: isModeStolen(link), uplink: uplink)
    }

    static func isModeStolen(_ link: Link) -> Bool {
        // The flag goes with the modes L3 and L3S. The kernel tells of it before it changes the mode itself, and then of
        // nothing more.
        link.ipvlanMode != nil && link.flags.contains(.noARP)
    }

    // MARK: Links

    func uplinkIndex() throws(NetlinkError) -> UInt32 {
        guard let uplinkLink else { throw NetlinkError(operation: "use the CLAT's uplink", code: ENODEV) }
        return uplinkLink.index
    }

    private func createUplinkLink(
        on parent: UInt32, _ attachment: UplinkAttachment, _ address: HardwareAddress
    ) throws -> UplinkLinkKind {
        let place = try here()
        if let name = try host.netlink.link(index: parent)?.name {
            try removeLeftover(Uplink.hostLinkName(for: name, index: Int(parent)))
        }
        let kind =
            attachment == .relay
            ? try createRelay(on: parent, place)
            : try createStackedLink(on: parent, canBeMacvlan: attachment == .ipvlanOrMacvlan, address, place)
        guard let link = try place.netlink.link(named: Self.uplinkLinkName) else {
            throw Failure(description: "the kernel made no link")
        }
        uplinkLink = link
        uplink = parent
        do { try host.keepGuard(of: parent) } catch {
            uplinkNote = (uplinkNote.map { "\($0); " } ?? "") + "\(error)"
        }
        try place.netlink.setLink(link.index, up: true)
        return kind
    }

    private func createStackedLink(
        on parent: UInt32, canBeMacvlan: Bool, _ address: HardwareAddress, _ place: Place
    ) throws -> UplinkLinkKind {
        do throws(NetlinkError) {
            try host.netlink.createIPvlan(Self.uplinkLinkName, on: parent, in: place.namespace)
            return .ipvlan
        } catch {
            switch (error.code, canBeMacvlan) {
            case (EOPNOTSUPP, true):
                try Self.needing("macvlan") { () throws(NetlinkError) in
                    try host.netlink.createMacvlan(
                        Self.uplinkLinkName, on: parent, in: place.namespace, hardwareAddress: address)
                }
                uplinkNote = "the kernel has no ipvlan; the CLAT has a hardware address of its own"
            case (EOPNOTSUPP, false):
                throw Failure(
                    description:
                        "the kernel has no ipvlan (load the module: modprobe ipvlan), and Wi-Fi carries no macvlan")
            case (EBUSY, true):
                // An uplink with macvlans takes no ipvlan, but takes one more of them, unless its only one wants all packets.
                do throws(NetlinkError) {
                    try host.netlink.createMacvlan(
                        Self.uplinkLinkName, on: parent, in: place.namespace, hardwareAddress: address)
                } catch { throw Self.uplinkIsHeld(error) }
                uplinkNote = "there is a macvlan on the uplink already, beside which no ipvlan can be"
            case (EBUSY, false): throw Self.uplinkIsHeld(error)
            default: throw error
            }
            return .macvlan
        }
    }

    private static func uplinkIsHeld(_ error: NetlinkError) -> Failure {
        Failure(description: "somebody else holds the uplink whole (\(error)); take that away first")
    }

    /// Makes what a module of that name makes; the remedy where the kernel has neither.
    static func needing<Value>(_ module: String, _ body: () throws(NetlinkError) -> Value) throws -> Value {
        do throws(NetlinkError) { return try body() } catch {
            guard error.code == EOPNOTSUPP else { throw error }
            throw Failure(description: "the kernel has no \(module) (load the module: modprobe \(module))")
        }
    }

    private func createHostLink(_ name: String, mtu: Int) throws -> Int {
        let place = try here()
        let link = try Self.needing("veth") { () throws(NetlinkError) in
            try host.netlink.createVeth(name, peer: Self.hostPeerName, in: place.namespace, mtu: mtu)
        }
        hostLink = link
        guard let peer = try place.netlink.link(named: Self.hostPeerName) else {
            throw Failure(description: "the kernel made no peer")
        }
        hostLinkPeer = peer
        try leaveTunnelsToStack(link.index)
        try place.netlink.setAddressGenerationMode(.none, ofLink: peer.index)
        try place.netlink.setLink(peer.index, up: true)
        try host.netlink.setLink(link.index, up: true)
        try host.netlink.replaceNeighbour(Neighbour(.v6(Self.gateway), at: peer.hardwareAddress, on: link.index))
        return Int(link.index)
    }

    /// Where somebody is still in the namespace of an agent that was killed, its links are there, and the one on the uplink has the
    /// address that is ours. They are known by the gateway.
    private func removeLeftover(_ name: String) throws {
        guard let link = try host.netlink.link(named: name) else { return }
        let gateways = try host.netlink.neighbours(.ipv6, on: link.index).map(\.address)
        guard link.kind == "veth", let namespace = link.linkNamespace, gateways.contains(.v6(Self.gateway)) else {
            throw Failure(
                description:
                    "\(name) is there already, and not the agent's; rename it, or delete it: ip link delete \(name)")
        }
        do throws(NetlinkError) {
            try host.netlink.deleteLink(named: Self.uplinkLinkName, inNamespace: namespace)
        } catch {
            guard error.code == ENODEV else { throw error }
        }
        try host.netlink.deleteLink(link.index)
    }

    /// A veth takes super-packets of TCP within a UDP tunnel whole. No program can tell such from one of UDP, and when it
    /// becomes IPv6 the kernel takes the tunnel's TCP for its own. So the host's stack cuts them before they come here. Not
    /// before Linux 5.6, where it cannot be told so by netlink.
    private func leaveTunnelsToStack(_ link: UInt32) throws(NetlinkError) {
        do throws(NetlinkError) {
            try LinkFeatures.switchOff(
                ["tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"], ofLink: link)
        } catch {
            guard error.code == ENOENT else { throw error }
        }
    }

    private func setHostLinkMTU(_ mtu: Int) throws {
        try host.netlink.setMTU(mtu, ofLink: try hostIndex())
        if let peer = hostLinkPeer { try here().netlink.setMTU(mtu, ofLink: peer.index) }
    }

    func hostIndex() throws(NetlinkError) -> UInt32 {
        guard let hostLink else { throw NetlinkError(operation: "use the host's IPv4 device", code: ENODEV) }
        return hostLink.index
    }

    // MARK: Routes

    private func set(_ new: Routing) throws {
        let index = try uplinkIndex()
        func routes(_ routing: Routing) -> [Route] {
            routing.onLink.compactMap { prefix in
                IPPrefix(.v6(prefix.address), length: prefix.length).map { Route(to: $0, on: index, metric: 256) }
            } + [
                routing.router == .unspecified
                    ? Route(to: .any(.ipv6), on: index, metric: 1024)
                    : Route(to: .any(.ipv6), via: .v6(routing.router), on: index, metric: 1024, flags: .onLink)
            ]
        }
        let old = routing.map(routes) ?? []
        let place = try here()
        if let address = new.hardwareAddress {
            // Stale: used at once, and asked for once it was used.
            try place.netlink.replaceNeighbour(Neighbour(.v6(new.router), at: address, on: index, state: .stale))
        }
        for route in routes(new) { try place.netlink.replaceRoute(route) }
        for route in old
        where !routes(new).contains(where: { $0.destination == route.destination && $0.metric == route.metric }) {
            try place.netlink.removeRoute(route)
        }
        routing = new
    }

    private func announce(_ address: IPv6Address) throws {
        let place = try here()
        guard let link = try place.netlink.link(index: uplinkIndex()), let own = link.hardwareAddress else { return }
        try place.namespace.run {
            try NeighbourAdvertisement.announce(address, at: own, on: link.index)
        }
    }

    // MARK: Translator

    private func startTranslator(_ configuration: TranslatorConfiguration, _ datapath: Datapath) throws {
        let place = try here()
        let ends = try ends()
        packets = try place.namespace.run {
            try PacketPath(ends, configuration: configuration, datapath: datapath)
        }
        overflowsBefore = 0
    }

    /// Packets that found the TUN's queue full; nil where there is none, or where the kernel does not say.
    func queueOverflows() -> UInt64? {
        packets.flatMap { try? place?.netlink.transmitDrops(ofLink: $0.tunIndex) }
    }

    /// Between what packets are carried.
    func ends() throws(Failure) -> PacketPath.Ends {
        guard let uplinkLink, let hostLink, let hostLinkPeer, let own = hostLinkPeer.hardwareAddress,
            let peer = hostLink.hardwareAddress
        else { throw Failure(description: "there is no link") }
        return PacketPath.Ends(
            uplink: uplinkLink.index, host: hostLinkPeer.index, hostAddress: own, peerAddress: peer)
    }

    /// Somebody may hold copies of the descriptors, so letting go is not enough.
    private func stopTranslator() {
        guard let index = packets?.tunIndex else { return }
        packets?.detach()
        packets = nil
        do { try place?.netlink.deleteLink(index) } catch {}
    }
}

extension AddressPhase {
    /// From the kernel's flags of an address.
    init(_ flags: AddressFlags) {
        self =
            if flags.contains(.dadFailed) {
                .duplicate
            } else if flags.contains(.optimistic) {
                .optimistic
            } else if flags.contains(.tentative) {
                .tentative
            } else {
                .preferred
            }
    }
}
