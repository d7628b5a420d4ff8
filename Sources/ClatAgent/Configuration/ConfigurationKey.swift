/// The keys of the configuration file. Each says what is allowed, as the end of a sentence that begins with `allowed: `.
enum ConfigurationKey: String, CaseIterable {
    case interfaces
    case exclude
    case logLevel = "log-level"
    case optimisticDAD = "optimistic-dad"
    case datapath
    case interface
    case name
    case nativeIPv4 = "native-ipv4"
    case pref64
    case dns
    case checkAddress = "check-address"
    case ipv4Address = "ipv4-address"
    case ipv6Address = "ipv6-address"
    case mtu
    case metric
    case ttl
    case strictHopLimit = "strict-hop-limit"
    case trafficClass = "traffic-class"
    case lowestIPv6MTU = "lowest-ipv6-mtu"
    case strictWellKnownPrefix = "strict-well-known-prefix"
    case nodeIdentification = "node-identification"
    case answerUntranslatable = "answer-untranslatable"
    case errorsPerSecond = "errors-per-second"

    /// Where a key may stand.
    enum Place {
        /// Before the first `[[interface]]`.
        case top
        /// In an `[[interface]]`.
        case section
        /// In both.
        case both
    }

    var place: Place {
        switch self {
        case .interfaces, .exclude, .logLevel, .optimisticDAD, .datapath, .interface: .top
        case .name: .section
        default: .both
        }
    }

    /// What its value may be.
    var allowed: String {
        switch self {
        case .interfaces, .exclude: #"a list of interface names or patterns, such as ["wlan0", "en*"]"#
        case .logLevel: "one of " + Self.list(LogLevel.allCases.map(\.rawValue))
        case .optimisticDAD, .dns, .strictHopLimit, .strictWellKnownPrefix, .nodeIdentification, .answerUntranslatable:
            "true or false"
        case .datapath: "one of " + Self.list(Datapath.allCases.map(\.rawValue))
        case .interface: "sections that begin with [[interface]]"
        case .name: #"an interface name or a pattern, such as "wlan*""#
        case .nativeIPv4: "one of " + Self.list(LinkPolicy.NativeIPv4.allCases.map(\.rawValue))
        case .pref64: #"an IPv6 prefix of length 32, 40, 48, 56, 64 or 96, such as "64:ff9b::/96""#
        case .checkAddress: #"the IPv4 address of a host, such as "192.0.2.1", but not of ipv4only.arpa (RFC 7050)"#
        case .ipv4Address: #""auto", or an IPv4 address such as "192.0.0.1""#
        case .ipv6Address: #""stable", "random", or an IPv6 address of the network"#
        case .mtu, .lowestIPv6MTU: "a whole number from 1280 to 65535"
        case .metric, .errorsPerSecond: "a whole number from 0 to 4294967295"
        case .ttl: "one of " + Self.list(LinkPolicy.TTL.allCases.map(\.rawValue))
        case .trafficClass: "one of " + Self.list(LinkPolicy.TrafficClass.allCases.map(\.rawValue))
        }
    }

    private static func list(_ words: [String]) -> String {
        words.map { "\"\($0)\"" }.joined(separator: ", ")
    }

    /// The keys that may stand at a place, in the order of the manual.
    static func keys(inSection: Bool) -> [ConfigurationKey] {
        allCases.filter { $0.place == .both || $0.place == (inSection ? .section : .top) }
    }

    /// The key that somebody who wrote `text` may have meant: one or two letters off.
    static func likely(_ text: String, inSection: Bool) -> ConfigurationKey? {
        let normal = text.replacing("_", with: "-").lowercased()
        return keys(inSection: inSection).map { ($0, distance($0.rawValue, normal)) }.filter { $0.1 <= 2 }
            .min { $0.1 < $1.1 }?.0
    }

    /// Letters to insert, remove or change to make one of the other (Levenshtein's distance).
    private static func distance(_ a: String, _ b: String) -> Int {
        let b = Array(b)
        var row = Array(0...b.count)
        for (i, x) in a.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for (j, y) in b.enumerated() {
                let above = row[j + 1]
                row[j + 1] = min(row[j] + 1, above + 1, diagonal + (x == y ? 0 : 1))
                diagonal = above
            }
        }
        return row[b.count]
    }
}
