public import ClatBase

/// Where a resolver of a link was learnt; it goes first that stands first.
public enum ResolverSource: String, Hashable, Sendable, Codable, CaseIterable {
    /// RDNSS option of a Router Advertisement (RFC 8106).
    case routerAdvertisement = "router-advertisement"
    /// A hook told it over the control socket.
    case told
    /// systemd-networkd or systemd-resolved holds it for this interface.
    case systemd
    /// /etc/resolv.conf, which does not tell of which interface it is: the last resort.
    case resolvConf = "resolv-conf"
}

extension IPv6Address {
    /// A resolver as files and hooks write it: `ADDRESS`, `ADDRESS%IFACE` or `ADDRESS#NAME`; nil where it has no IPv6 address, or is
    /// a stub on the loopback interface.
    public init?(resolver word: some StringProtocol) {
        self.init(String(word.prefix { $0 != "%" && $0 != "#" }))
        if isLoopback { return nil }
    }
}
