public import ClatBase
public import ClatTranslator

/// What the operator wants. A plain value: the defaults, what `ConfigurationFile` read, what the command line overrides,
/// and what `clat-agent disable` was told since.
public struct Configuration: Hashable, Sendable {
    /// Interfaces to serve, by name or glob(7) pattern; empty: every one that can carry a CLAT.
    public var interfaces: [String] = []
    /// Interfaces to leave alone, by name or pattern, whatever else says otherwise.
    public var excluded: [String] = []
    /// Interfaces that `clat-agent disable` switched off, by name.
    public var disabled: Set<String> = []
    /// How much to log.
    public var logLevel = LogLevel.info
    /// Use the CLAT address while DAD still runs (RFC 4429), where the kernel can. Namespaces made from then on have it.
    public var optimisticDAD = true
    /// What shall move the packets, of translators that start from then on.
    public var datapath = Datapath.auto
    /// What holds where no section does.
    public var defaults = LinkPolicy()
    /// In the order of the file.
    public var sections: [Section] = []

    /// What is wanted of interfaces whose name matches.
    public struct Section: Hashable, Sendable {
        /// A name or a glob(7) pattern.
        public var pattern: String
        /// The defaults, with what the section says instead.
        public var policy: LinkPolicy

        /// That policy for those names.
        public init(pattern: String, policy: LinkPolicy) {
            self.pattern = pattern
            self.policy = policy
        }
    }

    /// The defaults.
    public init() {}

    /// Whether an interface of that name is to be served, unless it is excluded.
    public func selects(_ name: String) -> Bool {
        interfaces.isEmpty || interfaces.contains { Glob.matches($0, name) }
    }

    /// Whether an interface of that name is to be left alone.
    public func excludes(_ name: String) -> Bool {
        excluded.contains { Glob.matches($0, name) }
    }

    /// What is wanted of an interface: the first section that matches, else the defaults.
    public func policy(for name: String) -> LinkPolicy {
        sections.first { Glob.matches($0.pattern, name) }?.policy ?? defaults
    }
}

/// What the operator wants of one interface. All but the addresses take effect on a running CLAT at once.
public struct LinkPolicy: Hashable, Sendable {
    /// What to do where the interface has native IPv4.
    public enum NativeIPv4: String, Hashable, Sendable, CaseIterable {
        /// No CLAT.
        case standDown = "stand-down"
        /// A CLAT beside it, whose route has a higher metric.
        case coexist
    }

    /// Where the CLAT's IPv6 address comes from.
    public enum IPv6Source: Hashable, Sendable {
        /// The same for the same network (RFC 7217).
        case stable
        /// Another one after each start of the agent.
        case random
        /// This one, on a link with its prefix.
        case fixed(IPv6Address)
    }

    /// What a packet's TTL or hop limit loses in the translator.
    public enum TTL: String, Hashable, Sendable, CaseIterable {
        /// One, as in any router (RFC 7915).
        case decrement
        /// Nothing: for networks that punish a lower one.
        case keep
    }

    /// What a packet's traffic class or TOS becomes in the translator.
    public enum TrafficClass: String, Hashable, Sendable, CaseIterable {
        /// The other one, with ECN.
        case copy
        /// Zero, as RFC 7915 offers where the two networks mean different things by it.
        case zero
    }

    /// What to do where the interface has native IPv4.
    public var nativeIPv4 = NativeIPv4.standDown
    /// Instead of what the network announces.
    public var pref64: PREF64?
    /// Ask resolvers for ipv4only.arpa where no router tells a PREF64 (RFC 7050).
    public var usesDNS = true
    /// An IPv4 address to send echo requests to through the CLAT; nil sends none.
    public var checkAddress: IPv4Address?
    /// The host's IPv4 address; nil is the first free one of 192.0.0.1 to 192.0.0.7.
    public var ipv4Address: IPv4Address?
    /// Where the CLAT's IPv6 address comes from; of an address that stands, it takes effect at the next one.
    public var ipv6Address = IPv6Source.stable
    /// Upper bound of the IPv6 MTU towards the NAT64, octets; the IPv4 route has 20 less. Nil is what link and router say.
    public var mtu: Int?
    /// Of the host's IPv4 route; nil is one more than that of the interface's IPv6 default route.
    public var metric: Int?
    /// See ``TTL``.
    public var ttl = TTL.decrement
    /// Refuse what arrives with the last of its hop limit, as a router would (RFC 7915), rather than deliver it.
    public var strictHopLimit = false
    /// See ``TrafficClass``.
    public var trafficClass = TrafficClass.copy
    /// Up to this size IPv4 packets with DF clear become one IPv6 packet, octets; nil is the IPv6 MTU.
    public var lowestIPv6MTU: Int?
    /// Refuse private IPv4 addresses under 64:ff9b::/96 (RFC 6052 section 3.1).
    public var strictWellKnownPrefix = false
    /// Say in ICMP errors from IPv6 routers which router it was (traceroute shows it).
    public var nodeIdentification = true
    /// Tell native IPv6 nodes that their packets cannot be translated (RFC 7915 section 5.4).
    public var answerUntranslatable = true
    /// ICMP errors that the translator makes per second, towards either side; those about sizes are counted apart.
    public var errorsPerSecond: UInt32 = 100

    /// The defaults.
    public init() {}

    /// The IPv6 address that the operator chose, if so.
    var fixedIPv6: IPv6Address? {
        if case .fixed(let address) = ipv6Address { address } else { nil }
    }
}

extension IPv4Address {
    /// The only addresses of ipv4only.arpa (RFC 7050 section 8.2).
    static let wellKnown = [IPv4Address(192, 0, 0, 170), IPv4Address(192, 0, 0, 171)]

    /// Of a host: neither of 0.0.0.0/8 or 127.0.0.0/8, nor multicast, nor reserved.
    var isHost: Bool {
        let first = rawValue >> 24
        return first != 0 && first != 127 && first < 224
    }

    /// Whether echo requests may go there through the NAT64: to any host but the well-known addresses (RFC 7050 section 3.1).
    public var isCheckable: Bool { isHost && !Self.wellKnown.contains(self) }
}
