extension ProbeReport {
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
            for route in one.routes {
                let lifetime =
                    route.lifetimeSeconds.map { $0 == 0 ? "withdrawn" : "for \(StatusText.duration($0))" } ?? "for ever"
                add("route", "\(route.prefix), preference \(route.preference), \(lifetime)")
            }
            if !one.resolvers.isEmpty { add("resolvers", one.resolvers.joined(separator: ", ")) }
            if let mtu = one.mtu { add("MTU", "\(mtu)") }
            let leftOut = Dictionary(one.leftOut.map { ($0, 1) }, uniquingKeysWith: +)
            for words in RouterAdvertisementProblem.words(of: leftOut) { add("left out", words) }
        }
        lines += RouterAdvertisementProblem.words(of: refused).flatMap {
            StatusText.wrapped("Advertisements refused: \($0)", indent: 4)
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
