/// The status as OpenMetrics text (openmetrics.io, version 1.0), for Prometheus.
public enum Metrics {
    /// The whole exposition, ending with `# EOF`.
    public static func text(of status: AgentStatus) -> String {
        var families: [Family] = [
            Family(
                "clat_agent", "info", "The agent itself.", [Sample(suffix: "_info", ["version": status.version], 1)]),
            Family(
                "clat_agent_uptime_seconds", "gauge", "Seconds the agent has run.",
                [Sample([:], UInt64(clamping: status.uptimeSeconds))]),
            Family(
                "clat_dropped_clients", "counter", "Clients of the control socket that were cut off.",
                [Sample(suffix: "_total", [:], UInt64(clamping: status.droppedClients ?? 0))]),
        ]
        func each(_ name: String, _ type: String, _ help: String, _ samples: (InterfaceStatus) -> [Sample]) {
            let all = status.interfaces.flatMap { entry in
                samples(entry).map { sample in
                    var sample = sample
                    sample.labels["interface"] = entry.interface
                    return sample
                }
            }
            if !all.isEmpty { families.append(Family(name, type, help, all)) }
        }
        func gauge(_ name: String, _ help: String, _ value: @escaping (InterfaceStatus) -> Int?) {
            each(name, "gauge", help) { entry in value(entry).map { [Sample([:], UInt64(clamping: $0))] } ?? [] }
        }
        func counts(_ name: String, _ help: String, _ label: String, _ prefix: String, _ values: [String]? = nil) {
            each(name, "counter", help) { entry in
                entry.counters.compactMap { key, count in
                    guard key.hasPrefix(prefix) else { return nil }
                    let value = String(key.dropFirst(prefix.count))
                    return values?.contains(value) == false ? nil : Sample(suffix: "_total", [label: value], count)
                }
            }
        }
        each("clat_state", "stateset", "Whether IPv4 goes through the CLAT.") { entry in
            InstanceState.allCases.map { Sample(["clat_state": $0.rawValue], $0 == entry.state ? 1 : 0) }
        }
        each("clat_reason", "info", "Why it is so.") { [Sample(suffix: "_info", ["code": $0.reason.code], 1)] }
        gauge("clat_state_seconds", "Seconds it has been so.") { $0.sinceSeconds }
        gauge("clat_pref64_lifetime_seconds", "Seconds until the NAT64 prefix runs out, unless announced again.") {
            $0.pref64LifetimeSeconds
        }
        gauge("clat_mtu_bytes", "MTU of the host's IPv4 route.") { $0.mtu }
        counts("clat_packets", "Packets translated; a super-packet counts once.", "direction", "packets-")
        counts("clat_kernel_packets", "Of these, packets translated in the kernel.", "direction", "kernel-packets-")
        counts("clat_bytes", "Octets of these packets.", "direction", "octets-")
        for name in ["tcp", "udp", "icmp", "other"] {
            counts("clat_\(name)_packets", "Of these packets, \(name).", "direction", "\(name)-", ["in", "out"])
        }
        counts("clat_dropped_packets", "Packets refused.", "reason", "drop-")
        each("clat_events", "counter", "What else the translator did, or met.") { entry in
            entry.counters.filter { !StatusText.isTraffic($0.key) }.map {
                Sample(suffix: "_total", ["event": $0.key], $0.value)
            }
        }
        each("clat_advertisements", "counter", "Router Advertisements used.") {
            [Sample(suffix: "_total", [:], UInt64(clamping: $0.advertisements))]
        }
        each("clat_refused_advertisements", "counter", "Router Advertisements, and options in them, not used.") {
            $0.refusedAdvertisements.map { Sample(suffix: "_total", ["reason": $0.key], UInt64(clamping: $0.value)) }
        }
        return families.map(\.text).joined() + "# EOF\n"
    }

    private struct Sample {
        var suffix: String
        var labels: [String: String]
        var value: UInt64

        init(suffix: String = "", _ labels: [String: String], _ value: UInt64) {
            (self.suffix, self.labels, self.value) = (suffix, labels, value)
        }

        func text(_ family: String) -> String {
            let pairs = labels.sorted { $0.key < $1.key }.map { "\($0.key)=\"\(Self.escaped($0.value))\"" }
            return "\(family)\(suffix)" + (pairs.isEmpty ? "" : "{\(pairs.joined(separator: ","))}") + " \(value)\n"
        }

        private static func escaped(_ text: String) -> String {
            text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
        }
    }

    private struct Family {
        var text: String

        init(_ name: String, _ type: String, _ help: String, _ samples: [Sample]) {
            text = "# TYPE \(name) \(type)\n# HELP \(name) \(help)\n" + samples.map { $0.text(name) }.sorted().joined()
        }
    }
}
