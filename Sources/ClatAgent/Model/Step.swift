public import ClatBase
public import ClatTranslator

/// One step of building, changing or undoing a CLAT instance. `Instance` carries it out, `Reconciler` chooses it.
public enum Step: Hashable, Sendable {
    /// A network namespace without a name.
    case createNamespace
    /// The CLAT's own link on the uplink, born in the namespace, up.
    case createUplinkLink(parent: Int, attachment: UplinkAttachment, hardwareAddress: HardwareAddress)
    /// Sets the ipvlan back to L2 mode, after another program has set all ipvlans of the uplink to another one.
    case restoreMode
    /// A veth pair between namespace and host, both ends up, without addresses.
    case createHostLink(name: String, mtu: Int)
    /// Another device MTU of both its ends, octets.
    case setHostLinkMTU(Int)
    /// A CLAT IPv6 address on the uplink link; DAD begins, where there is any. By a relay, what comes for it is out of the host's
    /// way from then on.
    case addAddress(IPv6Address)
    /// Takes one away.
    case removeAddress(IPv6Address)
    /// The namespace's way out.
    case setRouting(Routing)
    /// Tells the routers of an address that DAD has found to be ours alone (RFC 9131).
    case announce(IPv6Address)
    /// TUN, packet thread and steering.
    case startTranslator(TranslatorConfiguration)
    /// Other prefixes or addresses for a running translator.
    case updateTranslator(TranslatorConfiguration)
    /// An address of 192.0.0.0/29 on the host's end of the veth.
    case addIPv4Address(IPv4Address)
    /// Takes it away.
    case removeIPv4Address(IPv4Address)
    /// The host's IPv4 default route; the one that stood before goes only when the new one stands.
    case setIPv4Route(IPv4Route, replacing: IPv4Route?)
    /// Takes it away.
    case removeIPv4Route(IPv4Route)
    /// Ends the packet thread and takes TUN and steering away.
    case stopTranslator
    /// Takes the veth pair away.
    case removeHostLink
    /// Takes the CLAT's own link away.
    case removeUplinkLink
    /// Lets the namespace go.
    case closeNamespace

    /// What the step is called in status and log.
    public enum Name: String, Hashable, Sendable {
        /// See ``Step/createNamespace``.
        case createNamespace = "create the network namespace"
        /// See ``Step/createUplinkLink(parent:attachment:hardwareAddress:)``.
        case createUplinkLink = "create the CLAT's link on the uplink"
        /// See ``Step/createHostLink(name:mtu:)``.
        case createHostLink = "create the host's IPv4 device"
        /// See ``Step/restoreMode``.
        case restoreMode = "set the CLAT's ipvlan back to L2 mode"
        /// See ``Step/setHostLinkMTU(_:)``.
        case setHostLinkMTU = "set the MTU of the host's IPv4 device"
        /// See ``Step/addAddress(_:)``.
        case addAddress = "claim the CLAT IPv6 address (duplicate address detection)"
        /// See ``Step/removeAddress(_:)``.
        case removeAddress = "give up a CLAT IPv6 address"
        /// See ``Step/setRouting(_:)``.
        case setRouting = "set the CLAT's IPv6 routes"
        /// See ``Step/announce(_:)``.
        case announce = "announce the CLAT IPv6 address to the routers"
        /// See ``Step/startTranslator(_:)``.
        case startTranslator = "start the translator"
        /// See ``Step/updateTranslator(_:)``.
        case updateTranslator = "tell the translator of a change"
        /// See ``Step/addIPv4Address(_:)``.
        case addIPv4Address = "give the host its IPv4 address"
        /// See ``Step/removeIPv4Address(_:)``.
        case removeIPv4Address = "take the host's IPv4 address away"
        /// See ``Step/setIPv4Route(_:replacing:)``.
        case setIPv4Route = "set the host's IPv4 default route"
        /// See ``Step/removeIPv4Route(_:)``.
        case removeIPv4Route = "take the host's IPv4 default route away"
        /// See ``Step/stopTranslator``.
        case stopTranslator = "stop the translator"
        /// See ``Step/removeHostLink``.
        case removeHostLink = "remove the host's IPv4 device"
        /// See ``Step/removeUplinkLink``.
        case removeUplinkLink = "remove the CLAT's link on the uplink"
        /// See ``Step/closeNamespace``.
        case closeNamespace = "let the network namespace go"
    }

    /// The step without its particulars.
    public var name: Name {
        switch self {
        case .createNamespace: .createNamespace
        case .createUplinkLink: .createUplinkLink
        case .createHostLink: .createHostLink
        case .restoreMode: .restoreMode
        case .setHostLinkMTU: .setHostLinkMTU
        case .addAddress: .addAddress
        case .removeAddress: .removeAddress
        case .setRouting: .setRouting
        case .announce: .announce
        case .startTranslator: .startTranslator
        case .updateTranslator: .updateTranslator
        case .addIPv4Address: .addIPv4Address
        case .removeIPv4Address: .removeIPv4Address
        case .setIPv4Route: .setIPv4Route
        case .removeIPv4Route: .removeIPv4Route
        case .stopTranslator: .stopTranslator
        case .removeHostLink: .removeHostLink
        case .removeUplinkLink: .removeUplinkLink
        case .closeNamespace: .closeNamespace
        }
    }
}

/// What a step left behind that the next ones need.
public enum StepResult: Hashable, Sendable {
    /// Nothing to tell.
    case done
    /// The link on the uplink, and why it is not an ipvlan if it is none.
    case uplinkLink(UplinkLinkKind)
    /// The host's end of the veth.
    case hostLink(index: Int)
}

/// What carries the CLAT's IPv6 address.
public enum UplinkLinkKind: String, Hashable, Sendable, Codable {
    /// Shares the uplink's hardware address: works on Wi-Fi too.
    case ipvlan
    /// Has a hardware address of its own: where the kernel has no ipvlan.
    case macvlan
    /// A TAP, and a thread that moves packets between it and an uplink that can have neither of the two.
    case relay
}

/// What the CLAT's own link on an uplink is to be.
public enum UplinkAttachment: Hashable, Sendable {
    /// An ipvlan, as a station on Wi-Fi has one hardware address.
    case ipvlan
    /// An ipvlan, or a macvlan where that cannot be had.
    case ipvlanOrMacvlan
    /// A relay, as the uplink has no Ethernet header or no neighbour discovery.
    case relay
}

/// IPv6 routes of a CLAT namespace.
public struct Routing: Hashable, Sendable, Codable {
    /// The default router's link-local address; unspecified on a link whose other end needs no name.
    public var router: IPv6Address
    /// Its Ethernet address, if it told: an address in optimistic use may not ask for it (RFC 4429 section 3.2).
    public var hardwareAddress: HardwareAddress?
    /// Prefixes that are on the link.
    public var onLink: [IPv6Prefix]

    /// All goes to the other end of the link.
    static let direct = Routing(router: .unspecified, hardwareAddress: nil, onLink: [])

    /// Those routes.
    public init(router: IPv6Address, hardwareAddress: HardwareAddress?, onLink: [IPv6Prefix]) {
        self.router = router
        self.hardwareAddress = hardwareAddress
        self.onLink = onLink
    }

    /// The router, where all these go through it; nil where one has addresses on the link itself, or the other end needs no name.
    func nextHop(to destinations: [IPv6Prefix]) -> IPv6Address? {
        let isDirect = destinations.contains { one in onLink.contains { $0.overlaps(one) } }
        return isDirect || router == .unspecified ? nil : router
    }
}

/// The host's IPv4 default route through a CLAT.
public struct IPv4Route: Hashable, Sendable, Codable {
    /// Lower wins.
    public var metric: Int
    /// Of IPv4 packets, octets.
    public var mtu: Int
    /// Preferred source, 192.0.0.x.
    public var source: IPv4Address

    /// rtm_protocol of the routes we set (464 modulo 256), by which they are told from anybody else's.
    public static let origin = 208

    /// That route.
    public init(metric: Int, mtu: Int, source: IPv4Address) {
        self.metric = metric
        self.mtu = mtu
        self.source = source
    }

    /// The route that the kernel tells of; nil where it is none of ours.
    init?(_ route: DefaultRoute) {
        guard !route.isIPv6, route.origin == Self.origin, let mtu = route.mtu, let source = route.source else {
            return nil
        }
        self.init(metric: route.metric, mtu: mtu, source: source)
    }
}
