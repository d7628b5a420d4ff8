/// What `clat-agent probe` found; the JSON of `--json` is made of this.
public struct ProbeReport: Codable, Sendable, Equatable {
    /// One Router Advertisement.
    public struct Advertisement: Codable, Sendable, Equatable {
        /// A prefix of the link.
        public struct Prefix: Codable, Sendable, Equatable {
            /// ADDRESS/LENGTH.
            public var prefix: String
            /// Hosts may make addresses of it.
            public var autonomous: Bool
            /// It is on the link.
            public var onLink: Bool
            /// Seconds; absent is for ever.
            public var validSeconds: Int?
            /// Seconds; absent is for ever.
            public var preferredSeconds: Int?
        }

        /// Where it says that it leads, whether it is a default router or not (RFC 4191).
        public struct Route: Codable, Sendable, Equatable {
            /// ADDRESS/LENGTH.
            public var prefix: String
            /// high, medium or low.
            public var preference: String
            /// Seconds; absent is for ever, 0 withdraws it.
            public var lifetimeSeconds: Int?
        }

        /// A NAT64 prefix.
        public struct Announced: Codable, Sendable, Equatable {
            /// ADDRESS/LENGTH.
            public var prefix: String
            /// Seconds; 0 withdraws it.
            public var lifetimeSeconds: Int
        }

        /// The link-local address of the router.
        public var router: String
        /// After the solicitation.
        public var milliseconds: Int
        /// Seconds for which it is a default router; 0: it is none.
        public var routerLifetimeSeconds: Int
        /// high, medium or low.
        public var preference: String
        /// Octets, where it tells.
        public var mtu: Int?
        /// In the order of the message.
        public var prefixes: [Prefix]
        /// In the order of the message.
        public var pref64s: [Announced]
        /// In the order of the message.
        public var routes: [Route]
        /// Addresses of resolvers.
        public var resolvers: [String]
        /// Options that could not be used, by reason.
        public var leftOut: [String]
    }

    /// One resolver and its answer.
    public struct Resolver: Codable, Sendable, Equatable {
        /// Its address.
        public var address: String
        /// Where it was learnt.
        public var source: ResolverSource
        /// After the question; absent where no answer came.
        public var milliseconds: Int?
        /// Whether an answer came that can be used, be it that there is no NAT64.
        public var isUsable: Bool
        /// The NAT64 prefixes it tells.
        public var prefixes: [String]
        /// What it says, for people.
        public var says: String
    }

    /// What the agent would do.
    public struct Choice: Codable, Sendable, Equatable {
        /// The NAT64 prefix.
        public var pref64: String
        /// Who told it: router, resolver or configuration.
        public var source: String
        /// Who told it, and why that is chosen, for people.
        public var why: String
        /// The /64 the CLAT address would be of.
        public var addressPrefix: String?
        /// The default router.
        public var router: String?
        /// Towards the NAT64, octets.
        public var ipv6MTU: Int?
        /// Of the IPv4 default route.
        public var metric: Int?
    }

    /// The interface.
    public var interface: String
    /// In the order they came.
    public var advertisements: [Advertisement]
    /// Messages that were not used: how many by reason.
    public var refused: [String: Int]
    /// All that are known.
    public var resolvers: [Resolver]
    /// The choice; absent where there is no NAT64.
    public var choice: Choice?
    /// Why there would be no IPv4, where there would be none.
    public var obstacle: ReasonStatus?

    /// As one line of JSON with sorted keys.
    public var json: String { JSONLine.text(self) }
}
