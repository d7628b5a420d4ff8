public import ClatBase
import Glibc

/// The resolvers of a link as files of the system hold them, for links whose routers announce none.
public enum SystemResolvers {
    /// Files of that interface index, and the key of the line that lists its resolvers.
    private static func files(_ index: Int) -> [(path: String, key: String)] {
        [("/run/systemd/netif/links/\(index)", "DNS"), ("/run/systemd/resolve/netif/\(index)", "SERVERS")]
    }

    /// What systemd-networkd or systemd-resolved holds for the interface; else what /etc/resolv.conf holds, which may be of
    /// any interface. `root` goes before each path.
    public static func find(_ index: Int, root: String = "") -> (servers: [IPv6Address], source: ResolverSource) {
        for (path, key) in files(index) {
            let servers = parse(assignments: readText(root + path), key: key)
            if !servers.isEmpty { return (servers, .systemd) }
        }
        return (parse(resolvConf: readText(root + "/etc/resolv.conf")), .resolvConf)
    }

    /// The line `KEY=SERVER SERVER ...`, a server being `ADDRESS`, with `%IFACE` and `#NAME` after it where it has them.
    /// IPv4 addresses, and those with a port of their own, are left out.
    static func parse(assignments text: String, key: String) -> [IPv6Address] {
        text.split(whereSeparator: \.isNewline).filter { $0.hasPrefix(key + "=") }.flatMap { line in
            line.dropFirst(key.utf8.count + 1).split(separator: " ").compactMap { IPv6Address(resolver: $0) }
        }
    }

    /// The lines `nameserver ADDRESS` (resolv.conf(5)); a stub on the loopback interface is not the link's.
    static func parse(resolvConf text: String) -> [IPv6Address] {
        text.split(whereSeparator: \.isNewline).compactMap { line in
            let words = line.split { $0 == " " || $0 == "\t" }
            guard words.count >= 2, words[0] == "nameserver" else { return nil }
            return IPv6Address(resolver: words[1])
        }
    }
}
