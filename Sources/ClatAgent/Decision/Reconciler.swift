public import ClatBase
public import ClatTranslator

/// What an uplink's CLAT should be like.
public struct Target: Hashable, Sendable {
    /// The uplink.
    public var uplink: Int
    /// What the CLAT's own link there is.
    public var attachment: UplinkAttachment
    /// The Ethernet address of a macvlan; an ipvlan shares the uplink's.
    public var hardwareAddress: HardwareAddress
    /// The name of the host's device.
    public var hostLinkName: String
    /// The device MTU of the veth, octets: high enough for anything that comes in.
    public var hostLinkMTU: Int
    /// The namespace's way out.
    public var routing: Routing
    /// What the translator works with. Its first mapping is that of new flows; the others drain: after a renumbering
    /// the host's older sockets keep their 192.0.0.x, and with it their IPv6 address, for as long as that is valid.
    public var translator: TranslatorConfiguration
    /// The mapping of new flows.
    public var current: Mapping
    /// The host's route; nil while there is no way to the NAT64, though all else stays.
    public var route: IPv4Route?

    /// 192.0.0.x of all mappings.
    var ipv4s: Set<IPv4Address> { Set(translator.mappings.map(\.ipv4)) }
    /// The CLAT addresses of all mappings.
    var addresses: Set<IPv6Address> { Set(translator.mappings.map(\.ipv6)) }
}

/// What stands of an uplink's CLAT, as far as the outcomes of steps and the kernel's notices tell.
public struct Standing: Hashable, Sendable, Codable {
    /// Whether there is a namespace.
    public var hasNamespace = false
    /// What carries the address.
    public var uplinkLink: UplinkLinkKind?
    /// Another program has set the ipvlan to a mode in which neighbour discovery does not work.
    public var isModeStolen = false
    /// The host's end of the veth: its interface index.
    public var hostLink: Int?
    /// Device MTU of the veth, octets.
    public var hostLinkMTU: Int?
    /// CLAT addresses and how far they are.
    public var addresses: [IPv6Address: AddressPhase] = [:]
    /// When the newest address was added.
    public var addressAdded: BootInstant?
    /// Those that the routers were told of.
    public var announced: Set<IPv6Address> = []
    /// The namespace's routes.
    public var routing: Routing?
    /// What the translator was last told.
    public var translator: TranslatorConfiguration?
    /// The host's IPv4 addresses.
    public var ipv4s: Set<IPv4Address> = []
    /// The host's IPv4 route.
    public var route: IPv4Route?

    /// What a handover tells; of the translator it has no more than must be known.
    private enum CodingKeys: String, CodingKey {
        case hasNamespace, uplinkLink, isModeStolen, hostLink, hostLinkMTU, addresses, addressAdded, announced, routing,
            ipv4s
        case route
    }

    /// Nothing stands.
    public init() {}

    /// The mapping by which IPv4 works now, if it does.
    var working: Mapping? {
        translator?.mappings.first { $0.ipv4 == route?.source && addresses[$0.ipv6]?.isUsable == true }
    }

    /// Whether nothing stands.
    public var isNothing: Bool { self == Standing() }
}

/// Chooses the next step from what stands towards what should stand. Pure; one step at a time.
enum Reconciler {
    /// The next step, or nil where nothing can be done before something happens (or all is well).
    static func next(from standing: Standing, to target: Target?) -> Step? {
        guard let target else { return nextUndo(standing) }

        guard standing.hasNamespace else { return .createNamespace }
        guard standing.uplinkLink != nil else {
            // It knows the link that has gone.
            if standing.translator != nil { return nextUndo(standing) }
            return .createUplinkLink(
                parent: target.uplink, attachment: target.attachment, hardwareAddress: target.hardwareAddress)
        }
        if standing.isModeStolen { return .restoreMode }
        // Before anything that has to be waited for.
        if target.route == nil, let route = standing.route { return .removeIPv4Route(route) }
        // Mappings that drain are the target's too. What is not has lost its right: somebody else's, invalid, duplicate.
        if let obsolete = standing.ipv4s.subtracting(target.ipv4s).min() {
            if let route = standing.route, route.source == obsolete { return .removeIPv4Route(route) }
            return .removeIPv4Address(obsolete)
        }
        guard standing.hostLink != nil else {
            return .createHostLink(name: target.hostLinkName, mtu: target.hostLinkMTU)
        }
        guard standing.hostLinkMTU == target.hostLinkMTU else { return .setHostLinkMTU(target.hostLinkMTU) }
        guard standing.routing == target.routing else { return .setRouting(target.routing) }
        // Before the address: the stack of the namespace would answer what comes for it, a server's segment with a reset.
        guard var translator = standing.translator else { return .startTranslator(target.translator) }
        // With the routes, as what stands goes on meanwhile and the former router may have gone.
        if translator.nextHop != target.translator.nextHop {
            translator.nextHop = target.translator.nextHop
            return .updateTranslator(translator)
        }
        let address = target.current.ipv6
        guard standing.addresses[address] != nil else { return .addAddress(address) }
        // What stood before goes on until the new address can be used: make before break.
        guard standing.addresses[address]?.isUsable == true else { return nil }
        guard translator == target.translator else { return .updateTranslator(target.translator) }
        guard standing.ipv4s.contains(target.current.ipv4) else { return .addIPv4Address(target.current.ipv4) }
        if let route = target.route, standing.route != route { return .setIPv4Route(route, replacing: standing.route) }
        // By a relay there is nobody to tell.
        let silent = standing.uplinkLink == .relay ? [] : target.addresses.subtracting(standing.announced)
        if let address = silent.filter({ standing.addresses[$0] == .preferred }).min() { return .announce(address) }
        return standing.addresses.keys.filter { !target.addresses.contains($0) }.min().map { .removeAddress($0) }
    }

    /// The reverse of building: the host stops using IPv4 before anything under it goes, and the address goes before the
    /// translator.
    private static func nextUndo(_ standing: Standing) -> Step? {
        if let route = standing.route { return .removeIPv4Route(route) }
        if let ipv4 = standing.ipv4s.min() { return .removeIPv4Address(ipv4) }
        if standing.uplinkLink != nil { return .removeUplinkLink }
        if standing.translator != nil { return .stopTranslator }
        if standing.hostLink != nil { return .removeHostLink }
        if standing.hasNamespace { return .closeNamespace }
        return nil
    }
}

extension Standing {
    /// Takes in that a step ended well.
    mutating func absorb(_ step: Step, _ result: StepResult, now: BootInstant) {
        switch (step, result) {
        case (.createNamespace, _): hasNamespace = true
        case (.createUplinkLink, .uplinkLink(let kind)): uplinkLink = kind
        case (.restoreMode, _): isModeStolen = false
        case (.createHostLink(name: _, let mtu), .hostLink(let index)):
            hostLink = index
            hostLinkMTU = mtu
        case (.setHostLinkMTU(let mtu), _): hostLinkMTU = mtu
        case (.addAddress(let address), _):
            addresses[address] = .tentative
            addressAdded = now
        case (.setRouting(let new), _): routing = new
        case (.announce(let address), _): announced.insert(address)
        case (.startTranslator(let new), _), (.updateTranslator(let new), _): translator = new
        case (.addIPv4Address(let address), _): ipv4s.insert(address)
        case (.setIPv4Route(let new, replacing: _), _): route = new
        case (.createUplinkLink, _), (.createHostLink, _): break
        default: forget(step)
        }
    }

    /// Takes in that an undoing step is over. One that failed counts as well: closing the namespace removes what it
    /// left.
    mutating func forget(_ step: Step) {
        switch step {
        case .removeAddress(let address):
            addresses[address] = nil
            announced.remove(address)
        case .removeIPv4Address(let address): ipv4s.remove(address)
        case .removeIPv4Route: route = nil
        case .stopTranslator: translator = nil
        case .removeHostLink:
            hostLink = nil
            hostLinkMTU = nil
            ipv4s = []
            route = nil
        case .removeUplinkLink:
            uplinkLink = nil
            isModeStolen = false
            addresses = [:]
            announced = []
            addressAdded = nil
            routing = nil
        case .closeNamespace: self = Standing()
        default: break
        }
    }
}

extension Step {
    /// Whether the step takes something away.
    var isUndoing: Bool {
        switch self {
        case .removeAddress, .removeIPv4Address, .removeIPv4Route, .stopTranslator, .removeHostLink, .removeUplinkLink,
            .closeNamespace:
            true
        default: false
        }
    }
}
