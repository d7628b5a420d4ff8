import CLibBpf
public import ClatBase
import Glibc

/// The three eBPF programs of one instance, attached: they decide which packets are the translator's and carry them
/// between uplink, TUN and host, past the namespace's own stack.
///
/// With `.tcx` the programs are detached at the end of this value's life. With `.clsact` they stay until their devices go,
/// as the namespace does with the process; another `Steering` on the same devices takes their place.
public struct Steering: ~Copyable, Sendable {
    /// How programs are attached.
    public enum Attachment: String, Hashable, Sendable {
        /// By a link whose life is that of its descriptor, since Linux 6.6.
        case tcx
        /// By a filter of the clsact queueing discipline.
        case clsact
    }

    /// The devices of the namespace, all with Ethernet headers but the TUN.
    public struct Devices: Hashable, Sendable {
        /// Interface index of the ipvlan or macvlan.
        public var uplink: UInt32
        /// Interface index of the namespace's end of the veth.
        public var host: UInt32
        /// The Ethernet address of that end.
        public var hostAddress: HardwareAddress
        /// The Ethernet address of the other end, which the host has.
        public var peerAddress: HardwareAddress
        /// Interface index of the TUN.
        public var tun: UInt32

        /// These devices.
        public init(
            uplink: UInt32, host: UInt32, hostAddress: HardwareAddress, peerAddress: HardwareAddress, tun: UInt32
        ) {
            self.uplink = uplink
            self.host = host
            self.hostAddress = hostAddress
            self.peerAddress = peerAddress
            self.tun = tun
        }
    }

    /// How the kernel let us attach.
    public let attachment: Attachment
    let program: BPFProgram
    private let devices: Devices
    private let kernelPath: Bool
    /// Of uplink, host and TUN with `.tcx`; nil with `.clsact`.
    private let links: [3 of OwnedDescriptor]?

    /// Loads the programs, configures and attaches them. The calling thread is in the devices' network namespace.
    ///
    /// - Parameters:
    ///   - kernelPath: whether plain packets are translated in the kernel; else all go through the TUN.
    ///   - attachment: what to try first; `.clsact` follows where the kernel has no tcx.
    public init(
        _ devices: Devices, configuration: TranslatorConfiguration, kernelPath: Bool, attachment: Attachment = .tcx
    ) throws(SteeringError) {
        let program = try BPFProgram()
        try program.configure(clat_config(devices, configuration, kernelPath: kernelPath))
        let links = attachment == .tcx ? Self.tcxLinks(program, devices) : nil
        if links == nil {
            try Self.attachFilter(program.fromUplink, to: devices.uplink)
            try Self.attachFilter(program.fromTUN, to: devices.tun)
            try Self.attachFilter(program.fromHost, to: devices.host)
        }
        self.attachment = links == nil ? .clsact : .tcx
        self.program = program
        self.devices = devices
        self.kernelPath = kernelPath
        self.links = links
    }

    /// From the next packet on the programs work by this configuration. Needs no namespace, but the capability to make
    /// a map.
    public borrowing func update(_ configuration: TranslatorConfiguration) throws(SteeringError) {
        try program.configure(clat_config(devices, configuration, kernelPath: kernelPath))
    }

    /// What the programs counted since they were loaded.
    public borrowing func counts() throws(SteeringError) -> SteeringCounts {
        SteeringCounts(try program.counts())
    }

    /// Nil where the kernel has no tcx.
    private static func tcxLinks(_ program: borrowing BPFProgram, _ devices: Devices) -> [3 of OwnedDescriptor]? {
        guard let uplink = tcxLink(program.fromUplink, devices.uplink),
            let tun = tcxLink(program.fromTUN, devices.tun),
            let host = tcxLink(program.fromHost, devices.host)
        else { return nil }
        return [uplink, tun, host]
    }

    private static func tcxLink(_ program: borrowing OwnedDescriptor, _ interface: UInt32) -> OwnedDescriptor? {
        let link = bpf_link_create(
            program.rawValue, CInt(interface), bpf_attach_type(UInt32(CLAT_BPF_TCX_INGRESS)), nil)
        return link < 0 ? nil : OwnedDescriptor(adopting: link)
    }

    /// Handle and priority are always the same, so that a program left by another process is replaced, not joined.
    private static func attachFilter(
        _ program: borrowing OwnedDescriptor, to interface: UInt32
    ) throws(SteeringError) {
        let descriptor = program.rawValue
        let (answer, log) = BPFLog.collecting { () -> CInt in
            var hook = bpf_tc_hook()
            hook.sz = MemoryLayout<bpf_tc_hook>.size
            hook.ifindex = CInt(interface)
            hook.attach_point = BPF_TC_INGRESS
            let created = bpf_tc_hook_create(&hook)
            guard created == 0 || created == -EEXIST else { return created }
            var options = bpf_tc_opts()
            options.sz = MemoryLayout<bpf_tc_opts>.size
            options.prog_fd = descriptor
            options.flags = BPF_TC_F_REPLACE.rawValue
            options.handle = 1
            options.priority = 1
            return bpf_tc_attach(&hook, &options)
        }
        guard answer >= 0 else {
            throw SteeringError(SystemError(call: "attach an eBPF filter", code: -answer), log: log)
        }
    }
}
