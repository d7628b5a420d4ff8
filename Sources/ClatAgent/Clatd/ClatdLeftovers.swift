import ClatBase
import ClatNetlink

/// What a clatd that was killed left on the host (clatd 2.1.0).
///
/// Its TUN device, its routing table and its nftables table are clatd's own. What else it changes it shares with the host: that
/// is told by going together with one of these, and by having the value that clatd writes. Where none of the three is there,
/// nothing is.
enum ClatdLeftover: Hashable, Sendable {
    /// A TAYGA that still serves the device.
    case translator(process: Int, device: String)
    /// A setting below /proc/sys/net that clatd changed.
    case setting(String, is: String, was: String)
    /// An address that the host answers for on a device (proxy neighbour discovery).
    case proxy(Neighbour, device: String)
    /// The rule for the host's own addresses, one priority later than it belongs.
    case localRule(Rule)
    /// A rule that looks up clatd's table.
    case rule(Rule)
    /// A route of clatd's table.
    case route(Route)
    /// The table `ip6 clatd` of nftables.
    case packetFilter
    /// The TUN device, or the one of the kernel module nat46, where `index` is nil; its addresses, and the routes out of it, go with it.
    case device(name: String, index: UInt32?, address: IPv4Address?)
    /// A rule of ufw that lets packets pass from one device to another.
    case firewallRule(from: String, to: String)
    /// A configuration of TAYGA's among the temporary files.
    case file(String)

    /// Whether it is one of the settings that make a host forward.
    var isForwarding: Bool {
        guard case .setting(let name, _, _) = self else { return false }
        return !name.hasSuffix("/proxy_ndp")
    }

    /// What it is, for people.
    var sentence: String {
        switch self {
        case .translator(let process, let device): "process \(process), a TAYGA that serves the device \(device)"
        case .setting(let name, let now, let before): "the sysctl net/\(name) is \(now), and was \(before)"
        case .proxy(let neighbour, let device):
            "the host answers for \(neighbour.address) on \(device) (proxy neighbour)"
        case .localRule: "the IPv6 policy rule for local addresses has priority 1, and had 0"
        case .rule(let rule): "the IPv6 policy rule \(rule)"
        case .route(let route): "the IPv6 route to \(route.destination.address) in table \(route.table.rawValue)"
        case .packetFilter: "the nftables table ip6 clatd"
        case .device(let name, let index, let address):
            "the \(index == nil ? "nat46" : "TUN") device \(name)\(address.map { " with \($0)" } ?? ""), and the routes out of it"
        case .firewallRule(let from, let to):
            "ufw's rule for packets from \(from) to \(to), which outlasts even a reboot"
        case .file(let path): "the temporary file \(path)"
        }
    }
}

extension ClatdLeftover {
    /// What is looked at.
    struct Host {
        var links: [Link] = []
        var addresses: [InterfaceAddress] = []
        /// IPv6.
        var rules: [Rule] = []
        /// IPv6, of all tables.
        var routes: [Route] = []
        var proxies: [Neighbour] = []
        /// The processes that have a TUN device open: number, name, device.
        var users: [(process: Int, name: String, device: String)] = []
        /// Whether nftables has a table `ip6 clatd`.
        var hasPacketFilter = false
        /// The value of a setting below /proc/sys/net; nil where there is none such.
        var setting: (String) -> String? = { _ in nil }
    }

    /// Which names and numbers clatd used.
    struct Names {
        var device = "clat"
        var address = IPv4Address(192, 0, 0, 1)
        var table = RouteTable(rawValue: 0xc1a7)

        /// Those of a clatd.conf; the text is empty where there is none.
        init(configuration text: String = "") {
            for (key, value) in ClatdFile.values(text) {
                guard let value else { continue }
                switch key {
                case "clat-dev": device = value
                case "clat-v4-addr": address = IPv4Address(value) ?? address
                case "route-table": table = Self.number(value).map(RouteTable.init(rawValue:)) ?? table
                default: break
                }
            }
        }

        /// As ip(8) takes it.
        private static func number(_ text: String) -> UInt32? {
            let number = text.hasPrefix("0x") ? UInt32(text.dropFirst(2), radix: 16) : UInt32(text)
            // The tables every host has are nobody's.
            return number.flatMap { $0 == 0 || (253...255).contains($0) ? nil : $0 }
        }
    }

    /// All of it, in the order in which it is to be undone: what is clatd's own comes last, so that what is shared is still
    /// known for clatd's where the first attempt ends early.
    static func find(on host: Host, _ names: Names = Names()) -> [ClatdLeftover] {
        let rules = host.rules.filter { $0.table == names.table }
        let routes = host.routes.filter { $0.table == names.table }
        let device = device(on: host, names, usesTable: !rules.isEmpty || !routes.isEmpty)
        var own = rules.map(ClatdLeftover.rule)
        own += routes.filter { $0.outputIndex != device?.index }.map(ClatdLeftover.route)
        if host.hasPacketFilter { own.append(.packetFilter) }
        if let device {
            let address = host.addresses.first { $0.index == device.index && $0.address.family == .ipv4 }
            let ipv4: IPv4Address? = if case .v4(let value) = address?.address { value } else { nil }
            own.append(.device(name: device.name, index: device.kind == nil ? nil : device.index, address: ipv4))
        }
        guard !own.isEmpty else { return [] }
        let translators = host.users.filter { $0.name == "tayga" && $0.device == device?.name }
        return translators.map { .translator(process: $0.process, device: $0.device) } + forwarding(on: host)
            + proxies(on: host, Set(routes.map(\.destination) + rules.compactMap(\.destination)))
            + localRule(on: host) + own
    }

    /// A TUN of that name, or what may be nat46's: that has no kind, and no Ethernet. One that somebody serves may be anybody's, if it has nothing to do with clatd's table; one that
    /// nobody serves is dead, and clatd's by its address.
    private static func device(on host: Host, _ names: Names, usesTable: Bool) -> Link? {
        guard
            let link = host.links.first(where: { link in
                link.name == names.device && (link.kind == "tun" || link.kind == nil && !link.isEthernet)
            })
        else { return nil }
        let isServed = host.users.contains { $0.device == link.name }
        let hasAddress = host.addresses.contains { entry in
            guard entry.index == link.index, case .v4(let address) = entry.address else { return false }
            return address == names.address || address.isServiceContinuity
        }
        return usesTable || !isServed && hasAddress ? link : nil
    }

    /// clatd switches forwarding on where it is off, and before that makes a 2 of every 1 in accept_ra, also in `default`.
    /// Where that is not a 2, forwarding was on before it came.
    private static func forwarding(on host: Host) -> [ClatdLeftover] {
        func acceptRA(_ name: String) -> String { "ipv6/conf/\(name)/accept_ra" }
        let all = "ipv6/conf/all/forwarding"
        guard host.setting(all) == "1", host.setting(acceptRA("default")) == "2" else { return [] }
        return [.setting(all, is: "1", was: "0")]
            + (["default"] + host.links.map(\.name)).map(acceptRA).filter { host.setting($0) == "2" }
            .map { .setting($0, is: "2", was: "1") }
    }

    /// The addresses that clatd's table is about, and the switch of a device that answers for no other.
    private static func proxies(on host: Host, _ ours: Set<IPPrefix>) -> [ClatdLeftover] {
        let found = host.proxies.filter { ours.contains(IPPrefix($0.address)) }
        return found.flatMap { neighbour -> [ClatdLeftover] in
            guard let device = host.links.first(where: { $0.index == neighbour.index })?.name else { return [] }
            let name = "ipv6/conf/\(device)/proxy_ndp"
            let isLast = host.proxies.allSatisfy { $0 == neighbour || $0.index != neighbour.index }
            return (isLast && host.setting(name) == "1" ? [.setting(name, is: "1", was: "0")] : [])
                + [.proxy(neighbour, device: device)]
        }
    }

    private static func localRule(on host: Host) -> [ClatdLeftover] {
        let local = host.rules.filter { $0.table == .local }
        guard local.count == 1, let rule = local.first, rule.priority == 1 else { return [] }
        return [.localRule(rule)]
    }

    /// ufw's rules for the device, each once. `rules` is the text of ufw's `user.rules`, in which a rule from a device to another is
    /// `### tuple ### route:allow any any ... in_A!out_B`.
    static func firewallRules(_ rules: String, device: String) -> [ClatdLeftover] {
        var found: [ClatdLeftover] = []
        for line in rules.split(separator: "\n") where line.hasPrefix("### tuple ### route:allow ") {
            let ends = (line.split(separator: " ").last ?? "").split(separator: "!")
            guard ends.count == 2, ends[0].hasPrefix("in_"), ends[1].hasPrefix("out_") else { continue }
            let (from, to) = (String(ends[0].dropFirst(3)), String(ends[1].dropFirst(4)))
            let rule = ClatdLeftover.firewallRule(from: from, to: to)
            if from == device || to == device, !found.contains(rule) { found.append(rule) }
        }
        return found
    }

    /// How the files begin that clatd writes for TAYGA.
    static let fileMark = "# Ephemeral TAYGA config file written by "
}
