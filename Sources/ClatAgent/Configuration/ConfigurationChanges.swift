import ClatBase
import ClatTranslator

extension Configuration {
    /// What is different from an older configuration, a line for each key, and where it does not take effect at once, when.
    func changes(from old: Configuration) -> [String] {
        func list(_ names: [String]) -> String { names.isEmpty ? "none" : names.joined(separator: " ") }
        let top: [(ConfigurationKey, String, String)] = [
            (.interfaces, list(old.interfaces), list(interfaces)), (.exclude, list(old.excluded), list(excluded)),
            (.logLevel, old.logLevel.rawValue, logLevel.rawValue),
            (.optimisticDAD, "\(old.optimisticDAD)", "\(optimisticDAD)"),
            (.datapath, old.datapath.rawValue, datapath.rawValue),
        ]
        var lines = top.filter { $0.1 != $0.2 }.map { Self.line("", $0.0, $0.1, $0.2) }
        lines += defaults.changes(from: old.defaults, "")
        if sections.map(\.pattern) == old.sections.map(\.pattern) {
            for (new, old) in zip(sections, old.sections) {
                lines += new.policy.changes(from: old.policy, "\(new.pattern): ")
            }
        } else {
            lines.append("interface: the sections are now for \(list(sections.map(\.pattern)))")
        }
        return lines
    }

    fileprivate static func line(_ whom: String, _ key: ConfigurationKey, _ old: String, _ new: String) -> String {
        let late =
            switch key {
            case .ipv6Address: "; an address that stands is kept while its prefix is valid"
            case .optimisticDAD, .datapath: "; a CLAT that stands is not changed by this"
            default: ""
            }
        return "\(whom)\(key.rawValue): was \(old), is \(new)\(late)"
    }
}

extension LinkPolicy {
    fileprivate func changes(from old: LinkPolicy, _ whom: String) -> [String] {
        zip(old.values, values).filter { $0.value != $1.value }.map {
            Configuration.line(whom, $0.key, $0.value, $1.value)
        }
    }

    /// Every key, with its value as the file would have it.
    private var values: [(key: ConfigurationKey, value: String)] {
        let ipv6 =
            switch ipv6Address {
            case .stable: "stable"
            case .random: "random"
            case .fixed(let address): address.description
            }
        return [
            (.nativeIPv4, nativeIPv4.rawValue), (.pref64, pref64?.description ?? "what the network announces"),
            (.dns, "\(usesDNS)"), (.checkAddress, checkAddress?.description ?? "none"),
            (.ipv4Address, ipv4Address?.description ?? "auto"), (.ipv6Address, ipv6),
            (.mtu, mtu.map(String.init) ?? "that of the link"), (.metric, metric.map(String.init) ?? "automatic"),
            (.ttl, ttl.rawValue), (.strictHopLimit, "\(strictHopLimit)"), (.trafficClass, trafficClass.rawValue),
            (.lowestIPv6MTU, lowestIPv6MTU.map(String.init) ?? "the MTU"),
            (.strictWellKnownPrefix, "\(strictWellKnownPrefix)"), (.nodeIdentification, "\(nodeIdentification)"),
            (.answerUntranslatable, "\(answerUntranslatable)"), (.errorsPerSecond, "\(errorsPerSecond)"),
        ]
    }
}
