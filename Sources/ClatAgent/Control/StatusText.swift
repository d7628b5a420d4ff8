/// The status as people read it, 80 columns wide.
public enum StatusText {
    /// One sentence for each interface, what stands behind it indented below.
    public static func lines(of status: AgentStatus) -> [String] {
        if status.interfaces.isEmpty { return ["There is no interface that could have a CLAT."] }
        return status.interfaces.flatMap(lines(of:))
    }

    private static func lines(of status: InterfaceStatus) -> [String] {
        var lines = ["\(status.interface): \(status.reason.sentence) (for \(duration(status.sinceSeconds)))."]
        func add(_ label: String, _ value: String?) {
            if let value { lines.append("    " + label + String(repeating: " ", count: 12 - label.count) + value) }
        }
        if let pref64 = status.pref64 {
            let left = status.pref64LifetimeSeconds.map { ", \(duration($0)) left" } ?? ""
            let teller =
                status.pref64Router.map { " from router \($0)" } ?? status.pref64Resolver.map { " from resolver \($0)" }
                ?? " from the configuration"
            add("PREF64", pref64 + teller + left)
        }
        add("IPv4", zip(status.ipv4Address, status.device).map { "\($0) on \($1)" })
        add("IPv6", status.ipv6Address.map { $0 + (status.ipv6AddressState.map { " (\($0))" } ?? "") })
        add("carried by", status.uplinkKind.map { $0.rawValue + (status.uplinkNote.map { ": \($0)" } ?? "") })
        add("route", zip(status.metric, status.mtu).map { "metric \($0), MTU \($1)" })
        add("data path", status.datapath.map { "\($0.kind) (\($0.detail))" })
        for (name, count) in status.counters.sorted(by: { $0.key < $1.key }) where count > 0 {
            lines.append("    \(name.replacing("-", with: " ")): \(count)")
        }
        let refused = status.refusedAdvertisements.filter { $0.value > 0 }.sorted { $0.key < $1.key }
        if !refused.isEmpty {
            add("RAs refused", refused.map { "\($0.key) \($0.value)" }.joined(separator: ", "))
        }
        for resolver in status.resolvers {
            let place = resolver.source == .resolvConf ? " (of /etc/resolv.conf, for want of the link's own)" : ""
            add("resolver", "\(resolver.address)\(place): \(resolver.says ?? "not asked")")
        }
        let unread = status.refusedAnswers.sorted { $0.key < $1.key }
        if !unread.isEmpty {
            add("DNS refused", unread.map { "\($0.key) \($0.value)" }.joined(separator: ", "))
        }
        return lines
    }

    private static func zip<A, B>(_ a: A?, _ b: B?) -> (A, B)? {
        guard let a, let b else { return nil }
        return (a, b)
    }

    /// `2 d 3 h`, `5 min`, `40 s`.
    static func duration(_ seconds: Int) -> String {
        switch seconds {
        case ..<60: "\(seconds) s"
        case ..<3600: "\(seconds / 60) min"
        case ..<86400: "\(seconds / 3600) h \(seconds % 3600 / 60) min"
        default: "\(seconds / 86400) d \(seconds % 86400 / 3600) h"
        }
    }
}
