import Glibc

/// Running programs of this network namespace, by /proc.
public enum Processes {
    /// One of them.
    public struct Process: Hashable, Sendable {
        /// Its id.
        public var number: Int
        /// At most 15 octets; of one in Perl, its script's.
        public var name: String
    }

    /// Those of these names.
    public static func all(named names: Set<String>) -> [Process] {
        all().filter { names.contains($0.name) }
    }

    /// Those that have a TUN or TAP device open, and its name (`iff` in /proc/PID/fdinfo, tun.txt). Without root, those of
    /// this user.
    public static func withTUN() -> [(number: Int, name: String, device: String)] {
        all().flatMap { process in
            let directory = "/proc/\(process.number)/fdinfo"
            return entries(ofDirectory: directory).compactMap { entry in
                readText("\(directory)/\(entry)").split(separator: "\n").first { $0.hasPrefix("iff:") }
                    .map { (process.number, process.name, String($0.dropFirst(4).filter { $0 != "\t" && $0 != " " })) }
            }
        }
    }

    private static func all() -> [Process] {
        let ours = namespace(of: "self")
        return entries(ofDirectory: "/proc").compactMap { entry in
            guard let number = Int(entry), namespace(of: entry) == ours else { return nil }
            let name = String(readText("/proc/\(entry)/comm").prefix { $0 != "\n" })
            let interpreted = name.hasPrefix("perl") ? script(in: readText("/proc/\(entry)/cmdline")) : nil
            return Process(number: number, name: interpreted ?? name)
        }
    }

    /// The name of the script that an interpreter runs: the first argument that is no option. Arguments end with an octet 0.
    public static func script(in commandLine: String) -> String? {
        commandLine.split(separator: "\0").dropFirst().first { !$0.hasPrefix("-") }?.split(separator: "/").last.map(
            String.init)
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
