import ClatTranslator

/// What `clat-agent status` shows, as plain values; the JSON of `--json` is made of this.
public struct AgentStatus: Codable, Sendable, Equatable {
    /// The agent's version.
    public var version: String
    /// Its process number.
    public var pid: Int
    /// Seconds it has run.
    public var uptimeSeconds: Int
    /// Clients of the control socket that were cut off, as they were too many, asked too much, or spoke no varlink.
    public var droppedClients: Int?
    /// Times that the kernel had more to tell than could wait, whereupon all was listed anew.
    public var netlinkOverruns: Int?
    /// Messages of the kernel that could not be read.
    public var malformedNetlink: Int?
    /// Router Advertisements, of all interfaces, that came faster than they could be looked at, or had a wrong checksum.
    public var lostAdvertisements: Int?
    /// One for each interface that it knows, by name.
    public var interfaces: [InterfaceStatus]

    /// As one line of JSON with sorted keys.
    public var json: String { JSONLine.text(self) }

    /// The interfaces of which somebody who names none wants to hear. Virtual links on which no router was ever heard, as those of
    /// containers and virtual machines, are not among them where there is any other.
    var principal: [InterfaceStatus] {
        let served = interfaces.filter { !Reason.ofNoInterest.contains($0.reason.code) }
        let uplinks = served.filter { !$0.isUnheardVirtual }
        return uplinks.isEmpty ? served : uplinks
    }
}

/// One interface.
public struct InterfaceStatus: Codable, Sendable, Equatable {
    /// Its name.
    public var interface: String
    /// Whether IPv4 goes through a CLAT there.
    public var state: InstanceState
    /// Why.
    public var reason: ReasonStatus
    /// Seconds it has been in that state.
    public var sinceSeconds: Int
    /// Whether a DHCPv4 client may ask there to do without IPv4 (option 108, RFC 8925).
    public var ipv6OnlyCapable = false
    /// The kernel's word for a virtual link, such as veth or bridge; nil for hardware.
    public var linkKind: String?
    /// The PREF64 in use.
    public var pref64: String?
    /// Who told it: router, resolver or configuration.
    public var pref64Source: String?
    /// The router's link-local address, where a router told it.
    public var pref64Router: String?
    /// The resolver's address, where a resolver told it.
    public var pref64Resolver: String?
    /// Who told it, in words; nil while it gives way to another.
    var pref64Teller: String? {
        pref64Router.map { "router \($0)" } ?? pref64Resolver.map { "resolver \($0)" }
            ?? (pref64Source == "configuration" ? "the configuration" : nil)
    }
    /// Seconds until it runs out unless it is told again.
    public var pref64LifetimeSeconds: Int?
    /// Seconds until the agent asks for it anew by itself, unless it is told before.
    public var pref64RefreshSeconds: Int?
    /// 192.0.0.x.
    public var ipv4Address: String?
    /// The CLAT's address on the uplink.
    public var ipv6Address: String?
    /// How far that address is: tentative, optimistic, preferred, duplicate.
    public var ipv6AddressState: String?
    /// The host's IPv4 device.
    public var device: String?
    /// MTU of the host's IPv4 route, octets.
    public var mtu: Int?
    /// Metric of the host's IPv4 route.
    public var metric: Int?
    /// What carries the CLAT's address.
    public var uplinkKind: UplinkLinkKind?
    /// Why it is what it is, where that is not the usual.
    public var uplinkNote: String?
    /// What moves the packets, and why.
    public var datapath: DatapathStatus?
    /// Whether answers come back through the NAT64, in words; nil where nothing is known.
    public var path: String?
    /// The IPv4 address that is asked for echoes, where one is configured.
    public var checkAddress: String?
    /// Router Advertisements that were used.
    public var advertisements: Int
    /// Router Advertisements, and options in them, that were not used: how many by reason.
    public var refusedAdvertisements: [String: Int]
    /// The resolvers of the link, where it was needed to know them.
    public var resolvers: [ResolverStatus] = []
    /// DNS answers that could not be read: how many by reason.
    public var refusedAnswers: [String: Int] = [:]
    /// Packets and octets, drops by reason.
    public var counters: [String: UInt64]
    /// Seconds for which they have counted.
    public var countersSeconds: Int?

    /// Whether IPv4 works there, be it by something else than our CLAT.
    var hasIPv4: Bool { state == .on || ["native-ipv4", "other-clat"].contains(reason.code) }

    /// What was dropped, and what the word for it means: `igmp 4: IGMP has no translation.`
    var drops: [String] {
        DropReason.allCases.compactMap { reason in
            guard let count = counters["drop-\(reason.code)"], count > 0 else { return nil }
            return "\(reason.code) \(count): \(reason.sentence)"
        }
    }

    fileprivate var isUnheardVirtual: Bool {
        linkKind != nil && advertisements == 0
            && ["down", "no-carrier", "no-router-advertisement"].contains(reason.code)
    }
}

/// One resolver and what it says of ipv4only.arpa.
public struct ResolverStatus: Codable, Sendable, Equatable {
    /// Its address.
    public var address: String
    /// Where it was learnt.
    public var source: ResolverSource
    /// The prefixes it told.
    public var prefixes: [String]
    /// What it said last, for people; nil where it was not asked yet.
    public var says: String?
}

/// Code and sentence.
public struct ReasonStatus: Codable, Sendable, Equatable {
    /// For programs.
    public var code: String
    /// For people.
    public var sentence: String
}

/// The way of packets.
public struct DatapathStatus: Codable, Sendable, Equatable {
    /// `kernel` (eBPF, the rest in user space) or `userspace`.
    public var kind: String
    /// In words: how steering is attached, which offloads the TUN has.
    public var detail: String
}
