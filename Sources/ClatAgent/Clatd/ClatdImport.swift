import ClatBase
import ClatTranslator

/// Makes a `config.toml` of a clatd.conf (clatd 2.1.0), every key of which becomes a key of ours or a comment that says why not.
public enum ClatdImport {
    /// The new file's text, for the text of the old one.
    public static func toml(_ text: String) -> String {
        var lines = ["# Made of a clatd.conf by: clat-agent import-clatd"]
        for (key, value) in ClatdFile.values(text) {
            guard let value else {
                lines.append(comment("\(key): clatd 2.1.0 ignores such a line, which is no key=value"))
                continue
            }
            let new = line(key, value)
            // What our own file takes is known in one place; and debug and quiet are one key there.
            let isGood = new.hasPrefix("#") || canBeRead(lines + [new])
            lines.append(isGood ? new : dropped(key, value, "this value is not understood, or another key has set it"))
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private static func canBeRead(_ lines: [String]) -> Bool {
        (try? ConfigurationFile.parse(lines.joined(separator: "\n"), path: "")) != nil
    }

    /// A comment, which can have no control characters.
    private static func comment(_ text: String) -> String {
        String(
            "# \(text)".unicodeScalars.map { $0.properties.generalCategory == .control ? "?" : Character($0) })
    }

    private static func dropped(_ key: String, _ value: String, _ why: String) -> String {
        comment("\(key)=\(value): \(why)")
    }

    /// Whether the value is one of clatd's words for yes; nil where it is neither.
    private static func truth(_ value: String) -> Bool? {
        switch value.lowercased() {
        case "1", "true", "on", "yes": true
        case "0", "false", "off", "no": false
        default: nil
        }
    }

    /// How loud clatd is: a number, or one of its words; nil where it is neither.
    private static func level(_ value: String) -> Int? { Int(value) ?? truth(value).map { $0 ? 1 : 0 } }

    private static func line(_ key: String, _ value: String) -> String {
        func dropped(_ why: String) -> String { Self.dropped(key, value, why) }
        func quoted(_ name: String, _ text: String) -> String { "\(name) = \"\(text)\"" }
        let invalid = dropped("this value is not understood")
        let standard = dropped("it is so without a key")
        switch key {
        case "quiet": return level(value).map { $0 > 0 ? quoted("log-level", "warning") : standard } ?? invalid
        case "debug": return level(value).map { $0 > 0 ? quoted("log-level", "debug") : standard } ?? invalid
        case "plat-dev":
            return Glob.isPattern(value) || value.contains("\"") ? invalid : "interfaces = [\"\(value)\"]"
        case "plat-prefix": return PREF64(value).map { quoted("pref64", $0.description) } ?? invalid
        case "plat-fallback-prefix":
            return dropped("not needed: the prefix comes from Router Advertisements; to fix it, set pref64")
        case "clat-v4-addr": return IPv4Address(value).map { quoted("ipv4-address", $0.description) } ?? invalid
        case "clat-v6-addr":
            if value == "shared" || value == "derived" { return dropped("the CLAT always has an address of its own") }
            return IPv6Address(value).map { quoted("ipv6-address", $0.description) } ?? invalid
        case "v4-defaultroute-metric": return Int(value).map { "metric = \($0)" } ?? invalid
        case "v4-defaultroute-mtu":
            guard let mtu = Int(value) else { return invalid }
            // clatd's default, from a time when every tunnel was suspect.
            if mtu == 1260 { return dropped("the MTU of the link is used; set mtu = 1280 if the network needs that") }
            return (1260...65515).contains(mtu) ? "mtu = \(mtu + 20)" : invalid
        case "v4-conncheck-enable":
            return truth(value).map { quoted("native-ipv4", $0 ? "stand-down" : "coexist") } ?? invalid
        case "v4-defaultroute-advmss": return dropped("the MTU of the route is enough")
        case "v4-conncheck-delay": return dropped("native IPv4 is noticed as it comes and goes")
        case "v4-defaultroute-enable":
            return truth(value).map { $0 ? standard : dropped("the route is always set") } ?? invalid
        case "v4-defaultroute-replace":
            return dropped("native IPv4 is left alone; the interface's own IPv4 route wins while it is there")
        case "clat-dev": return dropped("the device is named clat-INTERFACE")
        case "dns64-servers":
            return dropped(
                "the resolvers of each link are asked, where its routers say nothing; to fix the prefix, set pref64")
        case "script-up", "script-down":
            return dropped("run a program on the events of: clat-agent monitor --json")
        case "tayga-conffile", "tayga-v4-addr", "cmd-tayga": return dropped("no TAYGA: the agent translates by itself")
        case "ctmark", "route-table": return dropped("no marks, rules and tables of the host are used")
        case "forwarding-enable": return dropped("the host forwards nothing for this")
        case "proxynd-enable": return dropped("the CLAT answers for its address itself")
        case "cmd-ip", "cmd-networkctl", "cmd-nft", "cmd-ufw": return dropped("no programs are run")
        default: return dropped("clatd 2.1.0 has no such key")
        }
    }
}
