import ClatBase
import ClatTranslator

/// TUN, packet thread and steering of one instance. Steering goes first, so that no packet comes to a TUN without a
/// reader.
final class PacketPath: Sendable {
    private let steering: Steering
    private let engine: TranslatorEngine
    /// What status tells of it.
    let status: DatapathStatus

    /// Starts all of it, in the calling thread's network namespace.
    init(
        uplink: UInt32, host: UInt32, hostAddress: HardwareAddress, peerAddress: HardwareAddress,
        configuration: TranslatorConfiguration
    ) throws {
        let tun = try TUNDevice()
        let devices = Steering.Devices(
            uplink: uplink, host: host, hostAddress: hostAddress, peerAddress: peerAddress, tun: tun.interfaceIndex)
        let offloads =
            switch tun.offloads {
            case let all where all.contains(.udp): "TCP and UDP super-packets"
            case let some where some.contains(.tcp): "TCP super-packets"
            default: "single packets"
            }
        engine = try TranslatorEngine(tun, configuration: configuration)
        steering = try Steering(devices, configuration: configuration, kernelPath: false)
        status = DatapathStatus(
            kind: "userspace", detail: "steered by eBPF on \(steering.attachment.rawValue), \(offloads)")
    }

    /// From the next packet on it works by this.
    func update(_ configuration: TranslatorConfiguration) throws(SteeringError) {
        engine.update(configuration)
        try steering.update(configuration)
    }

    /// Why the packet thread ended by itself, if it did.
    var end: String? {
        engine.end.map { "the packet thread ended: \($0)" }
    }

    /// Packets and octets each way, and what was refused or failed, by name.
    var counters: [String: UInt64] {
        let counts = engine.counters.snapshot()
        let faults = engine.faults
        var all = [
            "packets-out": counts.outbound.packets, "octets-out": counts.outbound.octets,
            "packets-in": counts.inbound.packets, "octets-in": counts.inbound.octets,
            "fragments-made": counts.fragmentsMade, "reassembled": counts.reassembled,
            "errors-to-host": counts.errorsToHost, "errors-to-network": counts.errorsToNetwork,
            "read-faults": faults.reads, "write-faults": faults.writes,
        ]
        for (reason, count) in counts.drops where count > 0 { all["drop-\(reason)"] = count }
        return all
    }
}
