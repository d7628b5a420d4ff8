import ClatBase
import ClatNetlink
import ClatTranslator
import Glibc

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
    /// Since when it counts.
    let started = BootInstant.now

    /// Between what it carries packets, in the calling thread's network namespace.
    struct Ends: Sendable {
        /// Interface index of the CLAT's own link on the uplink.
        var uplink: UInt32
        /// Interface index of the namespace's end of the veth.
        var host: UInt32
        /// The Ethernet address of that end.
        var hostAddress: HardwareAddress
        /// The Ethernet address of the other end, which the host has.
        var peerAddress: HardwareAddress

        fileprivate func devices(with tun: borrowing TUNDevice) -> Steering.Devices {
            Steering.Devices(
                uplink: uplink, host: host, hostAddress: hostAddress, peerAddress: peerAddress, tun: tun.interfaceIndex)
        }
    }

    /// Starts all of it, in the calling thread's network namespace.
    init(_ ends: Ends, configuration: TranslatorConfiguration, datapath: Datapath) throws {
        let tun = try TUNDevice()
        let devices = ends.devices(with: tun)
        let offloads = Self.words(tun.offloads)
        var attempt = try Attempt(devices, configuration, datapath)
        if let programs = attempt.programs.take() {
            engine = try TranslatorEngine(tun, configuration: configuration)
            status = attempt.status(programs.attachment, offloads, datapath).noting(engine.filterRefusal)
            way = .programs(programs)
        } else {
            if datapath == .kernel, let refusal = attempt.refusal { throw refusal }
            let errors = try ICMPErrorSocket()
            let routes = try RouteSteering(devices, configuration: configuration)
            engine = try TranslatorEngine(tun, errors: errors, configuration: Self.forwarded(configuration))
            way = .routes(routes)
            status = attempt.status(nil, offloads, datapath).noting(engine.filterRefusal)
        }
    }

    /// What another process has left of one.
    struct Relics: ~Copyable, Sendable {
        let steering: SteeringKind
        let tun: OwnedDescriptor
        /// Of uplink, TUN and host; the caller's.
        let links: [CInt]
    }

    /// Goes on where another process has left off. Packets that wait in the TUN are read first; the programs of before carry
    /// theirs until the new ones take their place.
    init(
        _ ends: Ends, configuration: TranslatorConfiguration, datapath: Datapath, adopting relics: borrowing Relics
    ) throws {
        let tun = try TUNDevice(adopting: relics.tun.duplicate())
        let devices = ends.devices(with: tun)
        let offloads = Self.words(tun.offloads)
        if relics.steering == .routes {
            engine = try TranslatorEngine(tun, errors: ICMPErrorSocket(), configuration: Self.forwarded(configuration))
            way = .routes(try RouteSteering(devices, configuration: configuration))
            status = Attempt().status(nil, offloads, datapath).noting(engine.filterRefusal)
        } else {
            engine = try TranslatorEngine(tun, configuration: configuration)
            var attempt = try Attempt(
                devices, configuration, datapath, relics.steering == .tcx ? .tcx : .clsact, replacing: relics.links)
            guard let programs = attempt.programs.take() else {
                throw attempt.refusal ?? SteeringError.failed(SystemError(call: "attach eBPF programs", code: ENOSYS))
            }
            status = attempt.status(programs.attachment, offloads, datapath).noting(engine.filterRefusal)
            way = .programs(programs)
        }
    }

    /// What came of attaching programs.
    private struct Attempt: ~Copyable {
        var programs: Steering?
        var refusal: SteeringError?

        /// None was made.
        init() {}

        /// Throws where a later one may go well: what takes the programs' place stays.
        init(
            _ devices: Steering.Devices, _ configuration: TranslatorConfiguration, _ datapath: Datapath,
            _ attachment: Steering.Attachment = .tcx, replacing former: [CInt] = []
        ) throws(SteeringError) {
            do throws(SteeringError) {
                programs = try Steering(
                    devices, configuration: configuration, kernelPath: datapath != .userspace, attachment: attachment,
                    replacing: former)
            } catch {
                if error.isPassing { throw error }
                refusal = error
            }
        }

        /// `attachment` is nil for routes and rules.
        borrowing func status(
            _ attachment: Steering.Attachment?, _ offloads: String, _ datapath: Datapath
        ) -> DatapathStatus {
            var words: [String] = datapath == .userspace ? ["as configured"] : []
            if let attachment {
                words.append("eBPF on \(attachment.rawValue), TUN with \(offloads)")
            } else {
                words.append("steered by routes and rules, as \(refusal.map { "\($0)" } ?? "before")")
                words.append("TUN with \(offloads)")
            }
            let isInKernel = attachment != nil && datapath != .userspace
            return DatapathStatus(kind: isInKernel ? "kernel" : "userspace", detail: words.joined(separator: "; "))
        }
    }

    private static func words(_ offloads: TUNDevice.Offloads) -> String {
        switch offloads {
        case let all where all.contains(.udp): "TCP and UDP super-packets"
        case let some where some.contains(.tcp): "TCP super-packets"
        default: "single packets"
        }
    }

    /// How packets find their way, for the process that comes next.
    var steering: SteeringKind {
        switch way {
        case .programs(let steering): steering.attachment == .tcx ? .tcx : .clsact
        case .routes: .routes
        }
    }

    /// Of the TUN, and of the links of uplink, TUN and host where there are any; valid as long as this lives.
    var descriptors: (tun: CInt, links: [CInt]) {
        switch way {
        case .programs(let steering): (engine.tunDescriptor, steering.linkDescriptors)
        case .routes: (engine.tunDescriptor, [])
        }
    }

    /// Has packets wait, that none is under way when the process becomes another program; and lets them go on.
    func pause() { engine.pause() }
    func resume() { engine.resume() }

    /// The TUN's interface index.
    var tunIndex: UInt32 { engine.tunIndex }

    /// Takes the programs away even where somebody else holds their links. What is left is the TUN.
    func detach() {
        switch way {
        case .programs(let steering): steering.detach()
        case .routes: break
        }
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
            guard let direction else { return }
            all["to-translator-\(name)"] = direction.toTranslator
            all["from-translator-\(name)"] = direction.fromTranslator
            for (reason, count) in direction.passed where count > 0 { all["passed-\(name)-\(reason.rawValue)"] = count }
        }
        var all = [
            "fragments-made": counts.fragmentsMade, "reassembled": counts.reassembled,
            "errors-to-host": counts.errorsToHost, "errors-to-network": counts.errorsToNetwork,
            "errors-suppressed": counts.errorsSuppressed, "read-faults": faults.reads, "write-faults": faults.writes,
            "kernel-faults": kernel?.failed ?? 0, "to-native-stack": kernel?.toStack ?? 0,
            "not-ipv4-from-host": kernel?.ignored ?? 0,
        ]
        add("out", counts.outbound, kernel?.outbound)
        add("in", counts.inbound, kernel?.inbound)
        for (reason, count) in counts.drops where count > 0 { all["drop-\(reason)"] = count }
        return all
    }
}

extension DatapathStatus {
    /// The same, and that the packet thread has no filter of system calls, if so.
    fileprivate func noting(_ filterRefusal: SystemError?) -> DatapathStatus {
        guard let filterRefusal else { return self }
        return DatapathStatus(kind: kind, detail: "\(detail); no filter of system calls: \(filterRefusal)")
    }
}
