import CSteering
public import ClatBase

/// All that the translator is told. Every switch defaults to what the RFCs say.
public struct TranslatorConfiguration: Hashable, Sendable {
    /// As many mappings as it may have: the current one and those that drain after a renumbering.
    public static let mappingLimit = Int(CLAT_MAPPINGS)

    /// At least one; more than ``mappingLimit`` are ignored. The first is current, the others drain after a renumbering. Outbound the host's
    /// source address selects the mapping, inbound the IPv6 destination together with the PREF64 of the source.
    public var mappings: [Mapping]
    /// PREF64s that the link tells besides the current mapping's: what comes from there to that is let in as well, and nothing goes out
    /// there, so that a flow's last packets arrive after another prefix was chosen.
    public var inboundPREF64s: [PREF64] = []
    /// The link-local address of the router that leads to every PREF64 here; nil where each packet's route is to be looked up.
    public var nextHop: IPv6Address?
    /// The uplink's IPv6 MTU in octets; taken as 1280 if less (RFC 8200 section 5).
    public var ipv6MTU: Int
    /// The MTU towards the host in octets.
    public var ipv4MTU: Int
    /// Up to this size an IPv4 packet with DF clear becomes one IPv6 packet, past it fragments (RFC 7915 section 4.1,
    /// "lowest-ipv6-mtu", there 1280). Octets; held between 1280 and `ipv6MTU`. The host lowers its own path MTU when a
    /// Packet Too Big arrives, so the link's MTU is a good value for a host; fragments are widely filtered.
    public var lowestIPv6MTU: Int
    /// Copies TOS and Traffic Class into each other; off sets zero (RFC 7915 sections 4.1 and 5.1).
    public var copyTrafficClass = true
    /// What a packet's TTL or hop limit loses: 1, or 0 for networks that punish a lower one.
    public var hopLimitDecrement: UInt8 = 1
    /// What the kernel takes of it besides, once before the packet comes here and once more after: 0 where eBPF carries
    /// packets past the stack, 1 where the stack forwards them. The translator gives both back, up to 255.
    public var kernelHops: UInt8 = 0
    /// Refuses inbound packets whose hop limit would reach zero, with a Time Exceeded. Off, a packet for this host is
    /// delivered with a TTL of at least 1, as a host does with what has reached it (RFC 8200 section 3).
    public var strictHopLimit = false
    /// Says in errors from routers without an IPv4 address which IPv6 router it was (draft-ietf-v6ops-icmpext-xlat-v6only-source).
    public var nodeIdentification = true
    /// Refuses RFC 1918 addresses under 64:ff9b::/96, as RFC 6052 section 3.1 has it and deployment does not.
    public var strictWellKnownPrefix = false
    /// Answers native IPv6 packets that cannot be translated with a Destination Unreachable, code 1 (RFC 7915 section 5.4).
    public var answerUntranslatable = true
    /// How many errors per second the translator makes, towards each side; 0 for none. Those about a packet's size are counted
    /// apart, so that no flood of others hides the path's MTU.
    public var errorsPerSecond: UInt32 = 100

    /// The mappings and, after all of them, the current one with each other PREF64; ``mappingLimit`` at most. The first that fits is taken.
    public var pairs: ArraySlice<Mapping> {
        let inbound = mappings.first.map { current in
            inboundPREF64s.map { Mapping(ipv4: current.ipv4, ipv6: current.ipv6, pref64: $0) }
        }
        return (mappings + (inbound ?? [])).prefix(Self.mappingLimit)
    }

    /// A configuration for an uplink of that MTU; `ipv4MTU` is `ipv6MTU` - 20, `lowestIPv6MTU` is `ipv6MTU`.
    public init(mappings: [Mapping], ipv6MTU: Int) {
        self.mappings = mappings
        self.ipv6MTU = ipv6MTU
        ipv4MTU = ipv6MTU - 20
        lowestIPv6MTU = ipv6MTU
    }
}
