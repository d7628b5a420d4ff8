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
    public var json: String { String(decoding: Varlink.encode(self).dropLast(), as: UTF8.self) }

    /// For people.
    public var lines: [String] {
        var lines: [String] = []
        func add(_ label: String, _ value: String) {
            lines.append("    " + label + String(repeating: " ", count: max(12 - label.count, 1)) + value)
        }
        if advertisements.isEmpty { lines.append("No router has answered on \(interface).") }
        for one in advertisements {
            let role =
                one.routerLifetimeSeconds > 0
                ? "default router for \(StatusText.duration(one.routerLifetimeSeconds)), preference \(one.preference)"
                : "no default router"
            lines.append("Router \(one.router) after \(one.milliseconds) ms: \(role)")
            for announced in one.pref64s {
                let lifetime = announced.lifetimeSeconds
                add(
                    "PREF64",
                    "\(announced.prefix) \(lifetime == 0 ? "withdrawn" : "for \(StatusText.duration(lifetime))")")
            }
            for prefix in one.prefixes {
                let flags = (prefix.autonomous ? ", autonomous" : "") + (prefix.onLink ? ", on link" : "")
                let valid = prefix.validSeconds.map(StatusText.duration) ?? "ever"
                let preferred = prefix.preferredSeconds.map(StatusText.duration) ?? "ever"
                add("prefix", "\(prefix.prefix)\(flags), valid for \(valid), preferred for \(preferred)")
            }
            if !one.resolvers.isEmpty { add("resolvers", one.resolvers.joined(separator: ", ")) }
            if let mtu = one.mtu { add("MTU", "\(mtu)") }
            if !one.leftOut.isEmpty { add("left out", one.leftOut.joined(separator: ", ")) }
        }
        if !refused.isEmpty {
            let counts = refused.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
            lines.append("Advertisements refused: \(counts.joined(separator: ", "))")
        }
        if resolvers.isEmpty { lines.append("No resolver of \(interface) is known.") }
        for one in resolvers {
            let time = one.milliseconds.map { " after \($0) ms" } ?? ""
            lines.append("Resolver \(one.address) (\(one.source.rawValue))\(time): \(one.says)")
        }
        if let choice {
            lines.append("The agent would take PREF64 \(choice.pref64) from \(choice.why).")
            if let prefix = choice.addressPrefix { add("IPv6", "an address of \(prefix)") }
            if let router = choice.router { add("router", router) }
            if let metric = choice.metric, let mtu = choice.ipv6MTU {
                add("IPv4 route", "metric \(metric), MTU \(mtu - 20)")
            }
        }
        if let obstacle { lines.append("\(interface): \(obstacle.sentence).") }
        return lines
    }
}
