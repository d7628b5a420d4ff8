/// The status as people read it, 80 columns wide.
public enum StatusText {
    /// Columns of a line. What has no blank in it, as a long address, is not broken.
    static let width = 80

    /// One sentence for each interface, what stands behind it indented below.
    public static func lines(of status: AgentStatus, coloured: Bool = false) -> [String] {
        if status.interfaces.isEmpty { return ["There is no interface that could have a CLAT."] }
        return status.interfaces.flatMap { lines(of: $0, coloured: coloured) }
    }

    /// One line for all: `wlan0 on, eth0 off (no-carrier)`; see ``AgentStatus/principal`` for what is left out.
    public static func short(_ status: AgentStatus) -> String {
        let words = status.principal.map { entry in
            entry.state == .on
                ? "\(entry.interface) on" : "\(entry.interface) \(entry.state.rawValue) (\(entry.reason.code))"
        }
        return words.isEmpty ? "no interface" : words.joined(separator: ", ")
    }

    private static func lines(of status: InterfaceStatus, coloured: Bool) -> [String] {
        var lines = wrapped(
            "\(status.interface): \(status.reason.sentence) (for \(duration(status.sinceSeconds))).", indent: 4)
        if coloured, let first = lines.first {
            let name = status.interface
            lines[0] = colour(status.state) + name + "\u{1b}[0m" + first.dropFirst(name.count)
        }
        func add(_ label: String, _ value: String?) {
            guard let value else { return }
            let text = label + String(repeating: " ", count: max(1, 14 - label.count)) + value
            lines += wrapped(text, indent: 14).map { "    " + $0 }
        }
        if let pref64 = status.pref64 {
            let left =
                (status.pref64LifetimeSeconds.map { ", \(duration($0)) left" } ?? "")
                + (status.pref64RefreshSeconds.map { ", refreshed in \(duration($0))" } ?? "")
            add("PREF64", pref64 + (status.pref64Teller.map { " from \($0)" } ?? "") + left)
        }
        add("IPv4", both(status.ipv4Address, status.device).map { "\($0) on \($1)" })
        add("IPv6", status.ipv6Address.map { $0 + (status.ipv6AddressState.map { " (\($0))" } ?? "") })
        add("carried by", status.uplinkKind.map { $0.rawValue + (status.uplinkNote.map { ": \($0)" } ?? "") })
        add("route", both(status.metric, status.mtu).map { "metric \($0), MTU \($1)" })
        add("path", status.path)
        add("data path", status.datapath.map { "\($0.kind) (\($0.detail))" })
        if status.datapath != nil {
            add("sent", traffic(status.counters, "out"))
            add("received", traffic(status.counters, "in"))
            // A few seconds less are those of the start.
            if status.state == .on, let counted = status.countersSeconds, counted + 5 < status.sinceSeconds {
                add("counted", "for \(duration(counted)), since the agent was started anew")
            }
        }
        for words in status.drops { add("dropped", words) }
        add("also", list(status.counters.filter { !isTraffic($0.key) }) { $0.replacing("-", with: " ") })
        for words in RouterAdvertisementProblem.words(of: status.refusedAdvertisements) { add("RAs refused", words) }
        for resolver in status.resolvers {
            let place = resolver.source == .resolvConf ? " (of /etc/resolv.conf, for want of the link's own)" : ""
            add("resolver", "\(resolver.address)\(place): \(resolver.says ?? "not asked")")
        }
        for words in DNSProblem.words(of: status.refusedAnswers) { add("DNS refused", words) }
        return lines
    }

    /// `12 packets, 3.4 kB`
    private static func traffic(_ counters: [String: UInt64], _ direction: String) -> String {
        let packets = counters["packets-\(direction)"] ?? 0
        return "\(packets) packet\(packets == 1 ? "" : "s"), \(size(counters["octets-\(direction)"] ?? 0))"
    }

    /// Whether a counter is one of packets and octets each way, or of drops.
    static func isTraffic(_ name: String) -> Bool {
        name.hasSuffix("-in") || name.hasSuffix("-out") || name.hasPrefix("drop-")
    }

    /// `name 3, other 4` of what is not zero; nil where all are.
    private static func list(_ counts: [String: UInt64], _ name: (String) -> String) -> String? {
        let words = counts.filter { $0.value > 0 }.sorted { $0.key < $1.key }.map { "\(name($0.key)) \($0.value)" }
        return words.isEmpty ? nil : words.joined(separator: ", ")
    }

    private static func colour(_ state: InstanceState) -> String {
        switch state {
        case .on: "\u{1b}[1;32m"
        case .starting, .suspended: "\u{1b}[1;33m"
        case .off: "\u{1b}[1;31m"
        }
    }

    private static func both<A, B>(_ a: A?, _ b: B?) -> (A, B)? {
        guard let a, let b else { return nil }
        return (a, b)
    }

    /// Broken at blanks; lines after the first begin with `indent` blanks.
    public static func wrapped(_ text: String, indent: Int) -> [String] {
        var lines: [String] = []
        var line = String(text.prefix { $0 == " " })
        // Runs of blanks, which align, stay in the first line.
        for word in text.dropFirst(line.count).split(separator: " ", omittingEmptySubsequences: false) {
            if !line.contains(where: { $0 != " " }) {
                line += word
            } else if line.count + 1 + word.count > width - 4 {
                lines.append(line)
                line = String(repeating: " ", count: indent) + word
            } else {
                line += " " + word
            }
        }
        return lines + [line]
    }

    /// `999 B`, `1.2 kB`, `34.5 MB`: powers of 1000.
    static func size(_ octets: UInt64) -> String {
        var tenths = octets
        var units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"][...]
        guard octets >= 1000 else { return "\(octets) B" }
        units.removeFirst()
        tenths = octets / 100
        while tenths >= 10_000, units.count > 1 {
            tenths /= 1000
            units.removeFirst()
        }
        return "\(tenths / 10).\(tenths % 10) \(units.first ?? "")"
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
