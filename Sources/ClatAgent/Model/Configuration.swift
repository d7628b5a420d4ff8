public import ClatTranslator

/// What the operator wants.
public struct Configuration: Hashable, Sendable {
    /// Interfaces to serve, by name; empty: every one that can carry a CLAT.
    public var interfaces: [String] = []
    /// Use the CLAT address while DAD still runs (RFC 4429), where the kernel can.
    public var optimisticDAD = true
    /// The PREF64 to use, whatever routers and resolvers tell.
    public var pref64: PREF64?
    /// Ask resolvers for ipv4only.arpa where no router tells a PREF64 (RFC 7050).
    public var usesDNS = true

    /// The defaults.
    public init() {}

    /// Whether an interface of that name is to be served.
    public func selects(_ name: String) -> Bool {
        interfaces.isEmpty || interfaces.contains(name)
    }
}
