public import ClatBase
import ClatTranslator

/// What one thread of a process may do, as `/proc/PID/task/TID/status` tells everybody (proc_pid_status(5)).
public struct ThreadPrivileges: Hashable, Sendable {
    /// The thread's name.
    public var name: String
    /// Its capabilities, all sets together but the bounding one, in the kernel's order.
    public var capabilities: [Capability]
    /// Whether programs it starts can have no more.
    public var hasNoNewPrivileges: Bool
    /// Whether a filter of system calls confines it.
    public var isFiltered: Bool

    /// Reads the text of a status file; nil where it is none.
    init?(status: String) {
        var fields: [Substring: String] = [:]
        for line in status.split(separator: "\n") {
            guard let colon = line.firstIndex(of: ":") else { continue }
            fields[line[..<colon]] = String(line[line.index(after: colon)...].drop { $0 == " " || $0 == "\t" })
        }
        let sets = ["CapInh", "CapPrm", "CapEff", "CapAmb"].map { fields[$0].flatMap { UInt64($0, radix: 16) } }
        guard let name = fields["Name"], !sets.contains(nil) else { return nil }
        let union = sets.reduce(0) { $0 | ($1 ?? 0) }
        self.name = name
        capabilities = (0..<64).filter { union >> UInt64($0) & 1 == 1 }.map { Capability(CInt($0)) }
        hasNoNewPrivileges = fields["NoNewPrivs"] == "1"
        isFiltered = fields["Seccomp"] == "2"
    }

    /// Of all threads of a process, the first one's first; empty where it cannot be seen.
    static func all(of process: Int) -> [ThreadPrivileges] {
        let directory = "/proc/\(process)/task"
        return entries(ofDirectory: directory).compactMap(Int.init).sorted().compactMap { thread in
            ThreadPrivileges(status: readText("\(directory)/\(thread)/status"))
        }
    }

    /// What it has and should not, as phrases. Threads that move packets are known by their names.
    var excess: [String] {
        let isPacketThread = [TranslatorEngine.threadName, UplinkRelay.threadName].contains(name)
        let allowed = isPacketThread ? [] : Preconditions.capabilities
        let surplus = capabilities.filter { !allowed.contains($0) }.map(\.description)
        return (surplus.isEmpty ? [] : ["\(name) has \(surplus.joined(separator: ", "))"])
            + (hasNoNewPrivileges ? [] : ["\(name) may get more from programs it starts"])
            + (isPacketThread && !isFiltered ? ["\(name) has no filter of system calls"] : [])
    }

    /// `clat-packets: no capabilities, filtered`
    var words: String {
        let names = capabilities.map(\.description).joined(separator: ", ")
        return "\(name): \(names.isEmpty ? "no capability" : names)\(isFiltered ? ", system calls filtered" : "")"
    }
}
