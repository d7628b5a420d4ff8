/// The status as text for Prometheus.
public enum Metrics {
    /// How it is written.
    public enum Format: Sendable {
        /// OpenMetrics (openmetrics.io, version 1.0), ending with `# EOF`.
        case openMetrics
        /// Prometheus' text format 0.0.4, which node_exporter's textfile collector reads: it knows neither `info` nor `stateset`,
        /// and a counter's family has the name of its samples.
        case prometheus
    }

    /// The whole exposition.
    public static func text(of status: AgentStatus, as format: Format) -> String {
        var families: [Family] = [
            Family(
                name: "clat_agent", type: "info", help: "The agent itself.",
                samples: [Sample(["version": status.version], 1)]),
            Family(
                name: "clat_agent_uptime_seconds", type: "gauge", help: "Seconds the agent has run.",
                samples: [Sample([:], UInt64(clamping: status.uptimeSeconds))]),
        ]
        for (name, help, count) in [
            ("clat_dropped_clients", "Clients of the control socket that were cut off.", status.droppedClients),
            (
                "clat_netlink_overruns", "Times the kernel had more to tell than could wait, and all was listed anew.",
                status.netlinkOverruns
            ),
            ("clat_malformed_netlink", "Messages of the kernel that could not be read.", status.malformedNetlink),
            (
                "clat_lost_advertisements",
                "Router Advertisements that came faster than they could be looked at, or had a wrong checksum.",
                status.lostAdvertisements
            ),
        ] {
            families.append(
                Family(
                    name: name, type: "counter", help: help, samples: [Sample([:], UInt64(clamping: count ?? 0))]))
        }
        func each(_ name: String, _ type: String, _ help: String, _ samples: (InterfaceStatus) -> [Sample]) {
            let all = status.interfaces.flatMap { entry in
                samples(entry).map { sample in
                    var sample = sample
                    sample.labels["interface"] = entry.interface
                    return sample
                }
            }
            if !all.isEmpty { families.append(Family(name: name, type: type, help: help, samples: all)) }
        }
        func gauge(_ name: String, _ help: String, _ value: @escaping (InterfaceStatus) -> Int?) {
            each(name, "gauge", help) { entry in value(entry).map { [Sample([:], UInt64(clamping: $0))] } ?? [] }
        }
        func counts(_ name: String, _ help: String, _ label: String, _ prefix: String, _ values: [String]? = nil) {
            each(name, "counter", help) { entry in
                entry.counters.compactMap { key, count in
                    guard key.hasPrefix(prefix) else { return nil }
                    let value = String(key.dropFirst(prefix.count))
                    return values?.contains(value) == false ? nil : Sample([label: value], count)
                }
            }
        }
        each("clat_state", "stateset", "Whether IPv4 goes through the CLAT.") { entry in
            InstanceState.allCases.map { Sample(["clat_state": $0.rawValue], $0 == entry.state ? 1 : 0) }
        }
        each("clat_reason", "info", "Why it is so.") { [Sample(["code": $0.reason.code], 1)] }
        gauge("clat_state_seconds", "Seconds it has been so.") { $0.sinceSeconds }
        gauge("clat_pref64_lifetime_seconds", "Seconds until the NAT64 prefix runs out, unless announced again.") {
            $0.pref64LifetimeSeconds
        }
        gauge("clat_mtu_bytes", "MTU of the host's IPv4 route.") { $0.mtu }
        counts("clat_packets", "Packets translated; a super-packet counts once.", "direction", "packets-")
        counts("clat_kernel_packets", "Of these, packets translated in the kernel.", "direction", "kernel-packets-")
        for (family, way) in [("to_translator", "to the"), ("from_translator", "from the")] {
            counts(
                "clat_\(family)_packets", "Packets that eBPF carried \(way) translator in user space.", "direction",
                family.replacing("_", with: "-") + "-")
        }
        counts("clat_bytes", "Octets of these packets.", "direction", "octets-")
        for name in ["tcp", "udp", "icmp", "other"] {
            counts("clat_\(name)_packets", "Of these packets, \(name).", "direction", "\(name)-", ["in", "out"])
        }
        counts("clat_dropped_packets", "Packets refused.", "reason", "drop-")
        each("clat_events", "counter", "What else the translator did, or met.") { entry in
            entry.counters.filter { !StatusText.isTraffic($0.key) }.map {
                Sample(["event": $0.key], $0.value)
            }
        }
        each("clat_advertisements", "counter", "Router Advertisements used.") {
            [Sample([:], UInt64(clamping: $0.advertisements))]
        }
        each("clat_refused_advertisements", "counter", "Router Advertisements, and options in them, not used.") {
            $0.refusedAdvertisements.map { Sample(["reason": $0.key], UInt64(clamping: $0.value)) }
        }
        each("clat_refused_answers", "counter", "Answers of resolvers that could not be read.") {
            $0.refusedAnswers.map { Sample(["reason": $0.key], UInt64(clamping: $0.value)) }
        }
        return families.map { $0.text(format) }.joined() + (format == .openMetrics ? "# EOF\n" : "")
    }

    private struct Sample {
        var labels: [String: String]
        var value: UInt64

        init(_ labels: [String: String], _ value: UInt64) {
            (self.labels, self.value) = (labels, value)
        }

        func text(_ name: String) -> String {
            let pairs = labels.sorted { $0.key < $1.key }.map { "\($0.key)=\"\(Self.escaped($0.value))\"" }
            return name + (pairs.isEmpty ? "" : "{\(pairs.joined(separator: ","))}") + " \(value)\n"
        }

        private static func escaped(_ text: String) -> String {
            text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
        }
    }

    private struct Family {
        var name: String
        /// OpenMetrics' word.
        var type: String
        var help: String
        var samples: [Sample]

        func text(_ format: Format) -> String {
            let sample = name + (type == "counter" ? "_total" : type == "info" ? "_info" : "")
            let isOpen = format == .openMetrics
            let family = isOpen ? name : sample
            let kind = isOpen || type == "counter" ? type : "gauge"
            return "# TYPE \(family) \(kind)\n# HELP \(family) \(help)\n"
                + samples.map { $0.text(sample) }.sorted().joined()
        }
    }
}
