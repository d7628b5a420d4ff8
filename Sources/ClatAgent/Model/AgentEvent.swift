/// Something that happened, as `clat-agent monitor` shows it.
public struct AgentEvent: Codable, Sendable, Equatable {
    /// What kind of thing.
    public enum Kind: String, Codable, Sendable, CaseIterable {
        /// State or reason changed; also the first word on each interface.
        case state
        /// Another PREF64 was chosen, or another source of it, or none is left.
        case pref64
        /// The path through the NAT64 has turned out to work, or not to.
        case path
        /// Whether IPv4 can be had without a DHCPv4 lease has changed (option 108, RFC 8925).
        case ipv6Only = "ipv6-only"
        /// The CLAT's IPv6 address got further.
        case address
        /// Something was built or undone.
        case step
        /// A step failed.
        case failure
    }

    /// Seconds since 1970, UTC.
    public var time: Double
    /// The network interface it is about.
    public var interface: String
    /// What kind of thing.
    public var kind: Kind
    /// The new state, of ``Kind/state`` only.
    public var state: InstanceState?
    /// The code of the reason, of ``Kind/state`` only.
    public var code: String?
    /// For people.
    public var text: String

    /// As one line of JSON with sorted keys.
    public var json: String { JSONLine.text(self) }
}
