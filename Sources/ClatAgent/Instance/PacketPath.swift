import ClatBase
import ClatNetlink
import ClatTranslator

/// TUN, packet thread and steering of one instance. Steering goes first, so that no packet comes to a TUN without a
/// reader.
final class PacketPath: Sendable {
    /// What brings packets to the TUN and away from it.
    private enum Way: ~Copyable, Sendable {
        case programs(Steering)
        case routes(RouteSteering)
    }

    private let way: Way
    private let engine: TranslatorEngine
    /// What status tells of it.
    let status: DatapathStatus

    /// Starts all of it, in the calling thread's network namespace.
    init(
        uplink: UInt32, host: UInt32, hostAddress: HardwareAddress, peerAddress: HardwareAddress,
        configuration: TranslatorConfiguration, datapath: Datapath
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
        var programs: Steering?
        var refusal: SteeringError?
        var inKernel = false
        // The programs of the kernel path are larger, and an old verifier may refuse them but take plain steering.
        for kernelPath in datapath == .auto ? [true, false] : [datapath == .kernel] where programs == nil {
            do throws(SteeringError) {
                programs = try Steering(devices, configuration: configuration, kernelPath: kernelPath)
                inKernel = kernelPath
            } catch { refusal = error }
        }
        var words: [String] = datapath == .userspace ? ["as configured"] : []
        if let programs = programs.take() {
            if let refusal { words.append("the kernel path is not to be had: \(refusal)") }
            words.append("eBPF on \(programs.attachment.rawValue), TUN with \(offloads)")
            engine = try TranslatorEngine(tun, configuration: configuration)
            way = .programs(programs)
        } else {
            if datapath == .kernel, let refusal { throw refusal }
            let errors = try ICMPErrorSocket()
            let routes = try RouteSteering(devices, configuration: configuration)
            words.append("steered by routes and rules" + (refusal.map { ", as \($0)" } ?? ""))
            words.append("TUN with \(offloads)")
            engine = try TranslatorEngine(tun, errors: errors, configuration: Self.forwarded(configuration))
            way = .routes(routes)
        }
        if let refusal = engine.filterRefusal { words.append("no filter of system calls: \(refusal)") }
        status = DatapathStatus(kind: inKernel ? "kernel" : "userspace", detail: words.joined(separator: "; "))
    }

    /// The same for a translator between two hops of the stack.
    private static func forwarded(_ configuration: TranslatorConfiguration) -> TranslatorConfiguration {
        var configuration = configuration
        configuration.kernelHops = 1
        return configuration
    }

    /// From the next packet on it works by this.
    func update(_ configuration: TranslatorConfiguration) throws {
        switch way {
        case .programs(let steering):
            engine.update(configuration)
            try steering.update(configuration)
        case .routes(let steering):
            engine.update(Self.forwarded(configuration))
            try steering.update(configuration)
        }
    }

    /// To be polled for reading: ready once the packet thread has ended by itself.
    var endDescriptor: CInt { engine.endDescriptor }

    /// Why the packet thread ended by itself, if it did.
    var end: String? {
        guard case .deviceGone(let error) = engine.end else { return nil }
        return "the packet thread ended: \(error)"
    }

    /// What the programs counted, where there are any.
    private var programCounts: SteeringCounts? {
        switch way {
        case .programs(let steering): try? steering.counts()
        case .routes: nil
        }
    }

    /// Packets and octets each way, both paths together, and what was refused or failed, by name.
    var counters: [String: UInt64] {
        let counts = engine.counters.snapshot()
        let faults = engine.faults
        let kernel = programCounts
        func add(_ name: String, _ user: TranslatorCounts.Direction, _ direction: SteeringCounts.Direction?) {
            let fast = direction?.translated
            all["packets-\(name)"] = user.packets + (fast?.packets ?? 0)
            all["octets-\(name)"] = user.octets + (fast?.octets ?? 0)
            all["kernel-packets-\(name)"] = fast?.packets ?? 0
            all["tcp-\(name)"] = user.tcp + (fast?.tcp ?? 0)
            all["udp-\(name)"] = user.udp + (fast?.udp ?? 0)
            all["icmp-\(name)"] = user.icmp + (fast?.icmp ?? 0)
            all["other-\(name)"] = user.other
        }
        var all = [
            "fragments-made": counts.fragmentsMade, "reassembled": counts.reassembled,
            "errors-to-host": counts.errorsToHost, "errors-to-network": counts.errorsToNetwork,
            "errors-suppressed": counts.errorsSuppressed, "read-faults": faults.reads, "write-faults": faults.writes,
            "kernel-faults": kernel?.failed ?? 0, "to-native-stack": kernel?.toStack ?? 0,
        ]
        add("out", counts.outbound, kernel?.outbound)
        add("in", counts.inbound, kernel?.inbound)
        for (reason, count) in counts.drops where count > 0 { all["drop-\(reason)"] = count }
        return all
    }
}
