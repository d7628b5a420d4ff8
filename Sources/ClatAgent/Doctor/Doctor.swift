public import ClatBase
import ClatNetlink
import Glibc

/// Walks the chain from the kernel to the IPv4 Internet and tells how each link is.
public struct Doctor {
    /// An IPv4 address that answers echo requests, where the operator names one.
    let target: IPv4Address?
    let client: ControlClient
    private let configurationFile: String
    /// For the look at the network.
    private(set) var configuration = Configuration()
    private let report: (Finding) -> Void
    /// Of anything that is broken.
    public private(set) var isHealthy = true
    /// Whether what is broken is only worth a note, as IPv4 works elsewhere and nobody asked after this interface.
    private var isAside = false

    /// Tells each finding to `report` as soon as it is there.
    public init(
        runtimeDirectory: String, configuration: String, target: IPv4Address?, report: @escaping (Finding) -> Void
    ) {
        client = ControlClient(runtimeDirectory: runtimeDirectory)
        configurationFile = configuration
        self.target = target
        self.report = report
    }

    mutating func tell(_ finding: Finding) {
        var finding = finding
        if isAside, finding.verdict == .broken { finding.verdict = .notice }
        if finding.verdict == .broken { isHealthy = false }
        report(finding)
    }

    /// All of it, for one interface or for every one that is to be served.
    public mutating func examine(interface: String?) {
        // What other processes and the packet filter have to do with it only these may see.
        keepOnly([.dacReadSearch, .sysPtrace] + Preconditions.capabilities)
        examineKernel()
        examineConfiguration()
        let status: AgentStatus
        do throws(ControlClient.Failure) {
            status = try client.status()
        } catch {
            examineCapabilities()
            tell(.broken("agent", "\(error)", remedy: "systemctl start clat-agent, or as root: clat-agent run"))
            return
        }
        tell(.good("agent", "version \(status.version) answers, process \(status.pid)"))
        examinePrivileges(status)
        examineCompetitors(status)
        var chosen = interface.map { name in status.interfaces.filter { $0.interface == name } } ?? status.principal
        let works = interface == nil && chosen.contains(where: \.hasIPv4)
        // Where IPv4 works somewhere, links without carrier are of no interest.
        if works { chosen.removeAll { ["down", "no-carrier"].contains($0.reason.code) } }
        if chosen.isEmpty {
            let names = status.interfaces.map(\.interface).joined(separator: ", ")
            tell(
                .broken(
                    "interface",
                    interface.map { "the agent knows no interface \($0)" } ?? "no interface is to be served",
                    remedy: names.isEmpty ? "connect to a network" : "the agent knows: \(names)"))
        }
        // From here on strangers are listened to: by raw sockets, in the CLAT's network namespace too.
        keepOnly([.netRaw, .sysAdmin])
        for entry in chosen {
            isAside = works && !entry.hasIPv4
            examine(entry)
        }
    }

    private mutating func keepOnly(_ capabilities: [Capability]) {
        do throws(SystemError) { try Privileges.keepOnly(capabilities) } catch {
            tell(
                .notice(
                    "privileges", "the doctor keeps more than it needs: \(error)",
                    remedy: "run it where the agent runs, not in a container that forbids this"))
        }
    }

    private mutating func examineConfiguration() {
        do throws(ConfigurationFile.Problems) {
            guard let read = try ConfigurationFile.read(configurationFile) else { return }
            configuration = read
            tell(.good("configuration", "\(configurationFile) can be used"))
        } catch {
            tell(
                .broken(
                    "configuration", error.lines.first ?? "\(configurationFile) cannot be used",
                    remedy: "all that is wrong with it: clat-agent config check \(configurationFile)"))
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

    private mutating func examine(_ entry: InterfaceStatus) {
        let name = entry.interface
        if entry.state == .on {
            tell(.good(name, entry.reason.sentence + (entry.pref64Teller.map { ", from \($0)" } ?? "")))
        } else if entry.hasIPv4 {
            tell(.good(name, entry.reason.sentence))
        } else {
            tell(.broken(name, entry.reason.sentence, remedy: Self.remedy(entry.reason.code, name: name)))
        }
        if ["down", "no-carrier", "disabled", "interface-gone", "native-ipv4", "other-clat"].contains(entry.reason.code)
        {
            return
        }
        examineForwarding(name)
        let router = examineDiscovery(entry)
        guard entry.state == .on else { return }
        if let address = entry.ipv6Address, let state = entry.ipv6AddressState {
            let carrier = entry.uplinkKind.map { ", carried by \($0.rawValue)" } ?? ""
            tell(.good("address", "\(address) is \(state)\(carrier)"))
        }
        let neighbour = router.flatMap { examineNeighbour(entry, $0) }
        if let path = entry.datapath {
            tell(
                path.kind == "kernel" || path.detail.hasPrefix("as configured")
                    ? .good("data path", "\(path.kind): \(path.detail)")
                    : .notice(
                        "data path", "\(path.kind): \(path.detail)", remedy: "IPv4 works, with more work for the CPU"))
        }
        examineRoute(entry)
        examinePath(entry, neighbour)
    }

    /// What to do about a reason for IPv4 being off.
    private static func remedy(_ code: String, name: String) -> String {
        switch code {
        case "down": "ip link set \(name) up"
        case "no-carrier": "plug in the cable, or join the Wi-Fi network"
        case "disabled": "clat-agent enable \(name)"
        case "no-router-advertisement":
            "look for them: tcpdump -i \(name) icmp6; a firewall of the host may drop them too"
        case "resolvers-silent":
            "clat-agent status \(name) names the resolvers; ask the network's operator for PREF64 in Router Advertisements"
        case "no-pref64", "no-pref64-in-dns", "suspended-no-pref64":
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
