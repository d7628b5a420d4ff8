import ClatBase
import ClatNetlink
import Glibc

/// Finds what a killed clatd left in this network namespace, and undoes it.
public struct ClatdCleanup {
    /// One thing that it left.
    public struct Item {
        let leftover: ClatdLeftover
        /// What it is, for people.
        public var sentence: String { leftover.sentence }
        /// Whether it is one of the settings that make a host forward.
        public var isForwarding: Bool { leftover.isForwarding }
        /// Undoes it; why not, where that fails.
        public func undo() -> String? { ClatdCleanup.undo(leftover) }
    }

    /// All of it, in the order in which it is undone.
    public let items: [Item]

    /// Where clatd's configuration is, unless it was told otherwise.
    public static let standardConfiguration = "/etc/clatd.conf"

    /// Why nothing can be done.
    public enum Failure: Error, CustomStringConvertible {
        /// A clatd is at work, and all of this is its own.
        case isRunning(Int)
        /// The kernel does not tell.
        case netlink(String)

        /// That of the command (sysexits.h).
        public var exitStatus: Int32 {
            switch self {
            case .isRunning: 75
            case .netlink: 71
            }
        }

        /// One sentence with the remedy.
        public var description: String {
            switch self {
            case .isRunning(let process):
                "a clatd is running (process \(process)) and undoes all of this when it ends: systemctl disable --now clatd"
            case .netlink(let text):
                "the kernel does not say what is there: \(text); try again on the host itself, not in a container"
            }
        }
    }

    /// Looks, and changes nothing. `configuration` is a clatd.conf, which may be absent.
    public init(configuration: String) throws(Failure) {
        let names = ClatdLeftover.Names(configuration: readText(configuration))
        if let clatd = Processes.all(named: ["clatd"]).first { throw .isRunning(clatd.number) }
        var host = ClatdLeftover.Host()
        do throws(NetlinkError) {
            var netlink = try NetlinkSocket()
            host.links = try netlink.links()
            host.addresses = try netlink.addresses()
            host.rules = try netlink.rules(.ipv6)
            host.routes = try netlink.routes(.ipv6, table: names.table)
            host.proxies = try netlink.neighbours(.ipv6, proxies: true)
        } catch { throw .netlink("\(error)") }
        host.users = Processes.withTUN().map { ($0.number, $0.name, $0.device) }
        host.hasPacketFilter = Self.run(["nft", "list", "table", "ip6", "clatd"]) == 0
        host.setting = { try? Sysctl.read($0) }
        let rules = readText("/etc/ufw/user.rules") + readText("/etc/ufw/user6.rules")
        let found =
            ClatdLeftover.find(on: host, names) + ClatdLeftover.firewallRules(rules, device: names.device)
            + Self.temporaryFiles()
        items = found.map(Item.init)
    }

    /// The files that clatd's `tempfile` made, by their owner, name and first words.
    private static func temporaryFiles() -> [ClatdLeftover] {
        entries(ofDirectory: "/tmp").filter { $0.utf8.count == 10 }.map { "/tmp/\($0)" }.filter { path in
            var status = stat()
            guard lstat(path, &status) == 0, status.st_uid == 0, status.st_mode & S_IFMT == S_IFREG else {
                return false
            }
            return readText(path, limit: ClatdLeftover.fileMark.utf8.count) == ClatdLeftover.fileMark
        }.sorted().map(ClatdLeftover.file)
    }

    private static func undo(_ leftover: ClatdLeftover) -> String? {
        do {
            switch leftover {
            case .translator(let process, _): try retrying("end process \(process)") { kill(pid_t(process), SIGTERM) }
            case .setting(let name, _, let before): try Sysctl.write(before, to: name)
            case .packetFilter: return carryOut("nft delete table ip6 clatd")
            case .firewallRule(let from, let to):
                return carryOut("ufw route delete allow in on \(from) out on \(to)")
            case .file(let path): try retrying("remove \(path)") { unlink(path) }
            case .device(let name, nil, _): try Self.tellNAT46("del \(name)\n")
            default:
                var netlink = try NetlinkSocket()
                try undo(leftover, &netlink)
            }
            return nil
        } catch { return "\(error)" }
    }

    private static func undo(_ leftover: ClatdLeftover, _ netlink: inout NetlinkSocket) throws(NetlinkError) {
        switch leftover {
        case .proxy(let neighbour, _): try netlink.removeNeighbour(neighbour)
        case .localRule(let rule):
            // Never without one: the host would not know its own addresses.
            try netlink.addRule(Rule(.ipv6, priority: 0, table: .local, origin: .kernel))
            try netlink.removeRule(rule)
        case .rule(let rule): try netlink.removeRule(rule)
        case .route(let route): try netlink.removeRoute(route)
        case .device(_, let index, _): if let index { try netlink.deleteLink(index) }
        case .translator, .setting, .packetFilter, .firewallRule, .file: break
        }
    }

    private static func tellNAT46(_ order: String) throws(SystemError) {
        let path = "/proc/net/nat46/control"
        let control = try OwnedDescriptor(opening: path, O_WRONLY)
        let octets = Array(order.utf8)
        try retrying("write \(path)") { write(control.rawValue, octets, octets.count) }
    }

    /// Runs a command of words without blanks; why it failed, if it did.
    private static func carryOut(_ command: String) -> String? {
        switch run(command.split(separator: " ").map(String.init)) {
        case 0: nil
        case nil: "there is no \(command.prefix { $0 != " " }) here to run: \(command)"
        case .some: "this failed; run it to see why: \(command)"
        }
    }

    /// Runs a program and says nothing of what it says; its exit status, nil where it could not be run.
    private static func run(_ words: [String]) -> CInt? {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        for descriptor in STDIN_FILENO...STDERR_FILENO {
            posix_spawn_file_actions_addopen(&actions, descriptor, "/dev/null", O_RDWR, 0)
        }
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var process = pid_t()
        var status: CInt = 0
        guard posix_spawnp(&process, words[0], &actions, nil, &arguments, nil) == 0,
            (try? retrying("waitpid") { waitpid(process, &status, 0) }) != nil, status & 0x7f == 0
        else { return nil }
        return status >> 8 & 0xff
    }
}
