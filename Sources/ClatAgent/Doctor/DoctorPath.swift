import ClatBase
import Glibc

/// The way through the NAT64, measured by echoes to an address that the operator names: here, or as check-address. To nobody
/// else on the Internet is anything sent, and the addresses of ipv4only.arpa must not be asked (RFC 7050 section 3.1).
extension Doctor {
    mutating func examinePath(_ entry: InterfaceStatus, _ neighbour: Neighbourhood?) {
        guard let target = target ?? entry.checkAddress.flatMap(IPv4Address.init) else {
            return tell(
                .notice(
                    "reachability",
                    "not measured; of real traffic the agent says: \(entry.path ?? "there was none to judge by")",
                    remedy:
                        "name an IPv4 address that answers ping, and it is asked through the NAT64: "
                        + "clat-agent doctor --target ADDRESS"))
        }
        guard let device = entry.device else { return }
        var echo: Echo
        do throws(SystemError) { echo = try Echo.ipv4(by: device) } catch {
            tell(.notice("reachability", "not measured: \(error)", remedy: "run the doctor as root"))
            return
        }
        var outcome = Echo.Outcome.silence
        for _ in 0..<3 {
            outcome = echo.ask(target, size: 84)
            if case .reply = outcome { break }
        }
        switch outcome {
        case .reply(let milliseconds):
            tell(.good("reachability", "\(target) answers through the NAT64 after \(milliseconds) ms"))
            examineMTU(entry, target, &echo)
        case .refused(let type, let code, _, let router):
            tell(
                .broken(
                    "reachability", "\(router) says that \(target) cannot be reached (ICMP type \(type), code \(code))",
                    remedy:
                        "try --target with another address; if none works, the NAT64 is at fault: tell the network's "
                        + "operator"))
        case .unsent(let error):
            tell(.broken("reachability", "\(error)", remedy: "look for a firewall of the host: nft list ruleset"))
        case .silence:
            examineSilence(entry, target, neighbour)
        }
    }

    /// Where the echoes got lost: before the translator, on the link, or behind the router.
    private mutating func examineSilence(_ entry: InterfaceStatus, _ target: IPv4Address, _ neighbour: Neighbourhood?) {
        let now = (try? client.status())?.interfaces.first { $0.interface == entry.interface }?.counters ?? [:]
        func more(_ name: String) -> UInt64 { (now[name] ?? 0) &- (entry.counters[name] ?? 0) }
        guard more("icmp-out") >= 3 else {
            return tell(
                .broken(
                    "translator", "of 3 echo requests \(more("icmp-out")) came to the translator and left it",
                    remedy: "look for a firewall of the host (nft list ruleset), and for drops in: clat-agent status"))
        }
        switch neighbour {
        // That is told.
        case .refused: break
        case .silent:
            tell(
                .broken(
                    "router", "the router answers no echo request of the CLAT, and nothing comes back through it",
                    remedy:
                        "the router may not accept a second address of this host; ask the network's operator about "
                        + "limits of addresses per host (SAVI, RA guard, port security)"))
        case .found, nil:
            tell(
                .broken(
                    "NAT64",
                    "3 echo requests to \(target) left by \(entry.pref64 ?? ""), and none was answered"
                        + (neighbour == nil ? "" : "; the router itself answers"),
                    remedy:
                        "try --target with another address; if none answers, the NAT64 is silent, or the router does not "
                        + "know the CLAT's address \(entry.ipv6Address ?? ""): tell the network's operator"))
        }
    }

    /// Whether packets of the size that the route allows really pass.
    private mutating func examineMTU(_ entry: InterfaceStatus, _ target: IPv4Address, _ echo: inout Echo) {
        guard var size = entry.mtu else { return }
        let whole = size
        for _ in 0..<4 {
            switch Self.twice(&echo, target, size) {
            case .reply:
                tell(
                    .good(
                        "MTU",
                        size == whole
                            ? "packets of \(size) octets pass, as the route allows"
                            : "the path takes \(size) octets and says so; the route allows \(whole)"))
                return
            case .refused(type: 3, code: 4, let told, _) where told >= 68 && told < size: size = told
            default:
                let passes = Self.largest(&echo, target, below: size)
                tell(
                    .broken(
                        "MTU", "packets of more than \(passes) octets vanish on the path, and nobody says so",
                        remedy:
                            "set mtu = \(max(1280, passes + 20)) in config.toml, and tell the network's operator that "
                            + "ICMPv6 Packet Too Big is filtered"))
                return
            }
        }
        tell(
            .notice(
                "MTU", "the path has named a smaller size four times, and \(size) octets is the last",
                remedy: "set mtu = \(max(1280, size + 20)) in config.toml, so that programs need not find that out"))
    }

    private static func twice(_ echo: inout Echo, _ target: IPv4Address, _ size: Int) -> Echo.Outcome {
        let first = echo.ask(target, size: size)
        return first == .silence ? echo.ask(target, size: size) : first
    }

    /// The largest size that passes, to 8 octets, if packets of 84 octets do.
    private static func largest(_ echo: inout Echo, _ target: IPv4Address, below: Int) -> Int {
        var passes = 84
        var fails = below
        while fails - passes > 8 {
            let middle = (passes + fails) / 2
            if case .reply = twice(&echo, target, middle) { passes = middle } else { fails = middle }
        }
        return passes
    }
}
