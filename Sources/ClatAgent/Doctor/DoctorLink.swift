import ClatBase
import ClatNetlink
import Glibc

/// The link: routers, resolvers, and whether the router finds the CLAT.
extension Doctor {
    /// Asks routers and resolvers; the router that the CLAT would use, if one answers.
    mutating func examineDiscovery(_ entry: InterfaceStatus) -> IPv6Address? {
        let report: ProbeReport
        do throws(RunFailure) { report = try Probe(entry.interface, configuration).run() } catch {
            tell(.notice("routers", "not asked: \(error)", remedy: "run the doctor as root"))
            return entry.pref64Router.flatMap(IPv6Address.init)
        }
        examineRouters(report, entry)
        examineResolvers(report.resolvers)
        let told = Set(report.advertisements.flatMap(Self.prefixes) + report.resolvers.flatMap(\.prefixes))
        if told.count > 1 {
            tell(
                .notice(
                    "prefixes", "different NAT64 prefixes are told: \(told.sorted().joined(separator: ", "))",
                    remedy: "if one of them does not work, set pref64 in config.toml, and tell the network's operator"))
        }
        let routers = report.advertisements.filter { $0.routerLifetimeSeconds > 0 }.map(\.router)
        return (entry.pref64Router ?? routers.first).flatMap(IPv6Address.init)
    }

    /// Those that are not withdrawn.
    private static func prefixes(_ advertisement: ProbeReport.Advertisement) -> [String] {
        advertisement.pref64s.filter { $0.lifetimeSeconds > 0 }.map(\.prefix)
    }

    private mutating func examineRouters(_ report: ProbeReport, _ entry: InterfaceStatus) {
        guard !report.advertisements.isEmpty else {
            let evidence = "no router answers a solicitation"
            let remedy = "look for them: tcpdump -i \(entry.interface) icmp6; a firewall of the host may drop them too"
            return tell(
                entry.state == .on
                    ? .notice(
                        "routers",
                        "\(evidence); the CLAT lives on what "
                            + (entry.pref64Source == "configuration" ? "is configured" : "was announced before"),
                        remedy: remedy)
                    : .broken("routers", evidence, remedy: remedy))
        }
        for advertisement in report.advertisements {
            let prefixes = Self.prefixes(advertisement).joined(separator: ", ")
            tell(
                .good(
                    "routers",
                    "\(advertisement.router) answers after \(advertisement.milliseconds) ms, and announces "
                        + (prefixes.isEmpty ? "no PREF64" : "PREF64 \(prefixes)")))
        }
    }

    private mutating func examineResolvers(_ resolvers: [ProbeReport.Resolver]) {
        guard !resolvers.isEmpty else {
            return tell(
                .notice(
                    "DNS", "no resolver of this link is known that could be asked over IPv6",
                    remedy: "names are looked up elsewhere; routers should announce resolvers (RDNSS, RFC 8106)"))
        }
        let failing = resolvers.filter { !$0.isUsable }
        for resolver in resolvers where resolver.isUsable {
            tell(.good("DNS", "\(resolver.address) answers after \(resolver.milliseconds ?? 0) ms: \(resolver.says)"))
        }
        guard !failing.isEmpty else { return }
        let sayings = failing.map { "\($0.address) \($0.says)" }.joined(separator: "; ")
        let remedy = "tell the network's operator; a firewall of the host may drop port 53 too"
        tell(
            failing.count == resolvers.count
                ? .broken("DNS", "no resolver of this link is of use: \(sayings)", remedy: remedy)
                : .notice("DNS", sayings, remedy: remedy))
    }

    /// How the router takes to the CLAT's address.
    enum Neighbourhood {
        /// It answers it, so it has found it by neighbour discovery.
        case found
        /// It answers the CLAT's link-local address, and not that.
        case refused
        /// It does not answer at all, which may be its way.
        case silent
    }

    /// Asks the router for an echo, from the CLAT's own address: its answer comes only if it finds that on the link. Nil where
    /// it cannot be asked.
    mutating func examineNeighbour(_ entry: InterfaceStatus, _ router: IPv6Address) -> Neighbourhood? {
        guard let own = entry.ipv6Address.flatMap(IPv6Address.init),
            let descriptor = try? client.openNamespace(entry.interface)
        else { return nil }
        let namespace = NetworkNamespace(adopting: descriptor)
        @Sendable func ask(from source: IPv6Address?) throws -> Bool {
            let index = if_nametoindex("clat-uplink")
            var echo = try Echo.ipv6(from: source, on: index)
            try Privileges.keepOnly([])
            for _ in 0..<2 {
                if case .reply = echo.ask(router, on: index) { return true }
            }
            return false
        }
        guard let answersOwn = try? namespace.run({ try ask(from: own) }) else { return nil }
        if answersOwn {
            tell(.good("neighbour", "\(router) finds the CLAT at \(own), and answers it"))
            return .found
        }
        guard (try? namespace.run { try ask(from: nil) }) == true else { return .silent }
        tell(
            .broken(
                "neighbour", "\(router) answers the CLAT's link-local address, and not \(own)",
                remedy:
                    "the router does not accept a second address of this host, or has another station's entry for it: ask "
                    + "the network's operator about limits of addresses per host (SAVI, port security)"))
        return .refused
    }
}
