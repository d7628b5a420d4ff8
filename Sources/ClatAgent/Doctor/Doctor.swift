public import ClatBase
import ClatNetlink
import Glibc

/// Walks the chain from the kernel to the IPv4 Internet and tells how each link is.
public struct Doctor {
    /// An IPv4 address that answers echo requests.
    private let target: IPv4Address
    private let client: ControlClient
    private let report: (Finding) -> Void
    /// Of anything that is broken.
    public private(set) var isHealthy = true

    /// Tells each finding to `report` as soon as it is there.
    public init(runtimeDirectory: String, target: IPv4Address, report: @escaping (Finding) -> Void) {
        client = ControlClient(runtimeDirectory: runtimeDirectory)
        self.target = target
        self.report = report
    }

    private mutating func tell(_ finding: Finding) {
        if finding.verdict == .broken { isHealthy = false }
        report(finding)
    }

    /// All of it, for one interface or for every one that is to be served.
    public mutating func examine(interface: String?) {
        examineKernel()
        let status: AgentStatus
        do throws(ControlClient.Failure) {
            status = try client.status()
        } catch {
            tell(.broken("agent", "\(error)", remedy: "systemctl start clat-agent, or as root: clat-agent run"))
            return
        }
        tell(.good("agent", "version \(status.version) answers, process \(status.pid)"))
        examinePrivileges(status)
        examineCompetitors(status)
        var chosen = status.interfaces.filter { entry in
            interface.map { $0 == entry.interface }
                ?? !["not-selected", "unsuitable-link", "enslaved"].contains(entry.reason.code)
        }
        // Where IPv4 works somewhere, links without carrier are of no interest.
        if interface == nil, chosen.contains(where: { $0.state == .on }) {
            chosen.removeAll { ["down", "no-carrier"].contains($0.reason.code) }
        }
        if chosen.isEmpty {
            let names = status.interfaces.map(\.interface).joined(separator: ", ")
            tell(
                .broken(
                    "interface",
                    interface.map { "the agent knows no interface \($0)" } ?? "no interface is to be served",
                    remedy: names.isEmpty ? "connect to a network" : "the agent knows: \(names)"))
        }
        for entry in chosen { examine(entry) }
    }

    private mutating func examineKernel() {
        do throws(RunFailure) {
            try Preconditions.checkKernel()
            tell(.good("kernel", "IPv6 and the TUN device are there"))
        } catch {
            tell(.broken("kernel", "\(error)", remedy: "then start the agent again"))
        }
    }

    /// What each thread of the agent may do.
    private mutating func examinePrivileges(_ status: AgentStatus) {
        let threads = ThreadPrivileges.all(of: status.pid)
        guard !threads.isEmpty else {
            tell(
                .notice(
                    "privileges", "process \(status.pid) cannot be seen here",
                    remedy: "run the doctor where the agent runs, not in another container"))
            return
        }
        // Several instances have threads of the same kind.
        var words: [String] = []
        for thread in threads.map(\.words) where !words.contains(thread) { words.append(thread) }
        let excess = threads.flatMap(\.excess)
        tell(
            excess.isEmpty
                ? .good("privileges", words.joined(separator: "; "))
                : .notice(
                    "privileges", excess.joined(separator: "; "),
                    remedy:
                        "start it anew; if that changes nothing, this kernel lacks seccomp, or it is a fault: report it"
                ))
    }

    /// Other programs that do the same, or have the same addresses.
    private mutating func examineCompetitors(_ status: AgentStatus) {
        let processes = Processes.named(["clatd", "tayga", "xlat464"])
        if !processes.isEmpty {
            tell(
                .notice(
                    "competitors", "running besides: \(processes.joined(separator: ", "))",
                    remedy: "stop a second CLAT, such as: systemctl disable --now clatd; see clat-agent import-clatd"))
        }
        let ours = Set(status.interfaces.compactMap(\.device))
        guard var netlink = try? NetlinkSocket(), let addresses = try? netlink.addresses(.ipv4) else { return }
        for address in addresses {
            guard case .v4(let value) = address.address, value.rawValue >> 3 == IPv4Address(192, 0, 0, 0).rawValue >> 3,
                let name = Self.name(of: address.index), !ours.contains(name), !name.hasPrefix(Uplink.hostLinkPrefix)
            else { continue }
            tell(
                .notice(
                    "competitors", "\(value), an address for CLATs (RFC 7335), is on \(name), which is not ours",
                    remedy: "if a CLAT of NetworkManager, systemd-networkd or clatd runs there, keep one of the two"))
        }
    }

    // MARK: One interface

    private mutating func examine(_ entry: InterfaceStatus) {
        let name = entry.interface
        guard entry.state == .on else {
            tell(
                entry.reason.code == "native-ipv4"
                    ? .good("\(name)", entry.reason.sentence)
                    : .broken(
                        "\(name)", entry.reason.sentence, remedy: Self.remedy(entry.reason.code, name: name)))
            return
        }
        tell(
            .good(
                "\(name)",
                "\(entry.reason.sentence), from \(entry.pref64Router ?? entry.pref64Resolver ?? "the configuration")"))
        if let state = entry.ipv6AddressState, state != "preferred", state != "optimistic" {
            tell(.broken("address", "\(entry.ipv6Address ?? "") is \(state)", remedy: "clat-agent renew \(name)"))
        }
        if let path = entry.datapath {
            tell(
                path.kind == "kernel" || !path.detail.contains("not to be had")
                    ? .good("data path", "\(path.kind): \(path.detail)")
                    : .notice(
                        "data path", "\(path.kind): \(path.detail)", remedy: "IPv4 works, with more work for the CPU"))
        }
        examineRoute(entry)
        examineNetwork(entry)
    }

    /// Whether the host sends IPv4 our way: policy rules, VPNs and other interfaces may be before us.
    private mutating func examineRoute(_ entry: InterfaceStatus) {
        guard let device = entry.device, var netlink = try? NetlinkSocket() else { return }
        let found: Route?
        do throws(NetlinkError) { found = try netlink.route(to: .v4(target)) } catch {
            tell(.broken("route", "the host refuses IPv4: \(error)", remedy: "look at: ip -4 rule; ip -4 route"))
            return
        }
        guard let found, let index = found.outputIndex, let name = Self.name(of: index) else {
            tell(
                .broken(
                    "route", "the host has no IPv4 route to \(target)",
                    remedy: "something removed the agent's route: clat-agent renew \(entry.interface)"))
            return
        }
        if name == device {
            tell(.good("route", "IPv4 goes out of \(device), metric \(entry.metric ?? 0), MTU \(entry.mtu ?? 0)"))
        } else {
            tell(
                .notice(
                    "route", "IPv4 to \(target) goes out of \(name), which wins over \(device)",
                    remedy:
                        "that is as it should be for a VPN or for native IPv4; else look at: ip -4 rule; ip -4 route"))
        }
    }

    /// The way through the NAT64, measured by echoes.
    private mutating func examineNetwork(_ entry: InterfaceStatus) {
        guard let device = entry.device else { return }
        var echo: Echo
        do throws(SystemError) { echo = try Echo.ipv4(by: device) } catch {
            tell(.notice("reachability", "not measured: \(error)", remedy: "run the doctor as root"))
            return
        }
        let before = entry.counters
        var outcome = Echo.Outcome.silence
        for _ in 0..<3 {
            outcome = echo.ask(target, size: 84)
            if case .reply = outcome { break }
        }
        switch outcome {
        case .reply(let milliseconds):
            tell(.good("reachability", "\(target) answers through the NAT64 after \(milliseconds) ms"))
            examineMTU(entry, &echo)
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
            examineSilence(entry, before)
        }
    }

    /// Where the echoes got lost: before the translator, on the link, or behind the router.
    private mutating func examineSilence(_ entry: InterfaceStatus, _ before: [String: UInt64]) {
        let now = (try? client.status())?.interfaces.first { $0.interface == entry.interface }?.counters ?? before
        func more(_ name: String) -> UInt64 { (now[name] ?? 0) &- (before[name] ?? 0) }
        guard more("packets-out") >= 3 else {
            tell(
                .broken(
                    "translator", "of 3 echo requests \(more("packets-out")) came to the translator and left it",
                    remedy: "look for a firewall of the host (nft list ruleset), and for drops in: clat-agent status"))
            return
        }
        if let router = entry.pref64Router.flatMap({ IPv6Address($0) }),
            let problem = askRouter(router, entry.interface)
        {
            tell(problem)
            return
        }
        tell(
            .broken(
                "NAT64",
                "3 echo requests to \(target) left by \(entry.pref64 ?? ""), and none was answered; the router "
                    + "itself answers",
                remedy:
                    "try --target with another address; if none answers, the NAT64 is silent, or the router does not "
                    + "know the CLAT's address \(entry.ipv6Address ?? ""): tell the network's operator"))
    }

    /// Asks the router from the CLAT's own namespace; what is wrong, if anything is.
    private func askRouter(_ router: IPv6Address, _ interface: String) -> Finding? {
        guard let descriptor = try? client.openNamespace(interface) else { return nil }
        let namespace = NetworkNamespace(adopting: descriptor)
        let outcome = try? namespace.run { () -> Echo.Outcome in
            var echo = try Echo.ipv6()
            return echo.ask(router, on: if_nametoindex("clat-uplink"))
        }
        guard outcome == .silence else { return nil }
        return .broken(
            "router", "\(router) does not answer echo requests of the CLAT",
            remedy:
                "the router may not accept a second address of this host; ask the network's operator about limits of "
                + "addresses per host (SAVI, RA guard, port security)")
    }

    /// Whether packets of the size that the route allows really pass.
    private mutating func examineMTU(_ entry: InterfaceStatus, _ echo: inout Echo) {
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

    // MARK: Words

    private static func name(of index: UInt32) -> String? {
        var name = [CChar](repeating: 0, count: Int(IF_NAMESIZE))
        guard if_indextoname(index, &name) != nil else { return nil }
        return String(decoding: name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    private static func remedy(_ code: String, name: String) -> String {
        switch code {
        case "down": "ip link set \(name) up"
        case "no-carrier": "plug in the cable, or join the Wi-Fi network"
        case "disabled": "clat-agent enable \(name)"
        case "no-router-advertisement":
            "look for them: tcpdump -i \(name) icmp6; a firewall of the host may drop them too"
        case "resolvers-silent":
            "clat-agent status \(name) names the resolvers; ask the network's operator for PREF64 in Router Advertisements"
        case "no-pref64", "no-pref64-in-dns":
            "ask the network's operator for PREF64 in Router Advertisements (RFC 8781), or set pref64 in config.toml"
        case "no-usable-prefix":
            "ask the network's operator for a /64 with the autonomous flag (SLAAC)"
        case "no-router", "suspended-no-router":
            "the router announces itself with a lifetime of zero, or has gone: ask the network's operator"
        case "address-duplicate": "another station has the address: clat-agent renew \(name) tries again"
        case "ipv4-addresses-taken": "ip -4 address shows who has them"
        case "step-failed": "the log says more: journalctl -u clat-agent"
        default: "clat-agent status \(name) says more"
        }
    }
}

/// Running programs of this network namespace, by /proc.
private enum Processes {
    /// Which of these names run.
    static func named(_ names: Set<String>) -> [String] {
        guard let directory = opendir("/proc") else { return [] }
        defer { closedir(directory) }
        var found: Set<String> = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            guard Int(name) != nil, namespace(of: name) == namespace(of: "self"),
                let file = try? OwnedDescriptor(opening: "/proc/\(name)/comm", O_RDONLY)
            else {
                continue
            }
            var comm = [UInt8](repeating: 0, count: 32)
            let count = read(file.rawValue, &comm, comm.count)
            let word = String(decoding: comm.prefix(max(0, count)).prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
            if names.contains(word) { found.insert(word) }
        }
        return found.sorted()
    }

    private static func namespace(of process: String) -> String? {
        var text = [UInt8](repeating: 0, count: 64)
        let count = text.withUnsafeMutableBytes { buffer in
            buffer.withMemoryRebound(to: CChar.self) { buffer in
                buffer.baseAddress.map { readlink("/proc/\(process)/ns/net", $0, buffer.count) } ?? -1
            }
        }
        return count > 0 ? String(decoding: text[..<count], as: UTF8.self) : nil
    }
}
