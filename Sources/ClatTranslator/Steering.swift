import CLibBpf
import CSteering
public import ClatBase
import Glibc

/// The three eBPF programs of one instance, attached: they translate plain packets themselves, and carry
/// the translator's between uplink, TUN and host, past the namespace's own stack.
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
        /// Interface index of the CLAT's own link on the uplink.
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
    /// Of uplink, TUN and host with `.tcx`; nil with `.clsact`.
    private let links: [3 of OwnedDescriptor]?

    /// Loads the programs, configures and attaches them. The calling thread is in the devices' network namespace.
    ///
    /// - Parameters:
    ///   - kernelPath: whether plain packets are translated in the kernel; else all go through the TUN.
    ///   - attachment: what to try first; `.clsact` follows where the kernel has no tcx.
    ///   - former: the links, as ``linkDescriptors`` has them, of programs that another process attached. The new programs
    ///     take the place of these at once, so that no packet meets none or two. They stay the caller's.
    public init(
        _ devices: Devices, configuration: TranslatorConfiguration, kernelPath: Bool, attachment: Attachment = .tcx,
        replacing former: [CInt] = []
    ) throws(SteeringError) {
        let program = try BPFProgram()
        try program.configure(clat_config(devices, configuration, kernelPath: kernelPath))
        let links =
            if !former.isEmpty {
                try Self.replace(former, by: program, on: devices)
            } else {
                attachment == .tcx ? try Self.tcxLinks(program, devices) : nil
            }
        if links == nil {
            do throws(SteeringError) {
                try Self.attachFilter(program.fromUplink, to: devices.uplink)
                try Self.attachFilter(program.fromTUN, to: devices.tun)
                try Self.attachFilter(program.fromHost, to: devices.host)
            } catch {
                // One alone would take packets to where nobody waits for them.
                for interface in [devices.uplink, devices.tun, devices.host] { Self.removeFilters(from: interface) }
                throw error
            }
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

    /// Of uplink, TUN and host with `.tcx`, valid as long as this value lives; none with `.clsact`.
    public var linkDescriptors: [CInt] {
        switch links {
        case .some(let links): links.indices.map { links[$0].rawValue }
        case nil: []
        }
    }

    /// Detaches the programs, whoever else holds their links.
    public borrowing func detach() {
        for link in linkDescriptors { _ = bpf_link_detach(link) }
    }

    /// Exchanges the programs of links, each in one instant.
    private static func replace(
        _ former: [CInt], by program: borrowing BPFProgram, on devices: Devices
    ) throws(SteeringError) -> [3 of OwnedDescriptor] {
        let interfaces = [devices.uplink, devices.tun, devices.host]
        guard former.count == interfaces.count else {
            throw .failed(SystemError(call: "take over \(former.count) eBPF links, not 3", code: EINVAL))
        }
        for (link, interface) in zip(former, interfaces) {
            try checkLink(link, isOn: interface, bpf_attach_type(UInt32(CLAT_BPF_TCX_INGRESS)))
        }
        try check(bpf_link_update(former[0], program.fromUplink.rawValue, nil), "exchange the uplink's eBPF program")
        try check(bpf_link_update(former[1], program.fromTUN.rawValue, nil), "exchange the TUN's eBPF program")
        try check(bpf_link_update(former[2], program.fromHost.rawValue, nil), "exchange the host's eBPF program")
        let uplink = try duplicate(former[0])
        let tun = try duplicate(former[1])
        let host = try duplicate(former[2])
        return [uplink, tun, host]
    }

    private static func duplicate(_ link: CInt) throws(SteeringError) -> OwnedDescriptor {
        try adopt(fcntl(link, F_DUPFD_CLOEXEC, 3), "duplicate an eBPF link")
    }

    /// Nil where the kernel has no tcx.
    private static func tcxLinks(
        _ program: borrowing BPFProgram, _ devices: Devices
    ) throws(SteeringError) -> [3 of OwnedDescriptor]? {
        guard let uplink = try tcxLink(program.fromUplink, devices.uplink),
            let tun = try tcxLink(program.fromTUN, devices.tun),
            let host = try tcxLink(program.fromHost, devices.host)
        else { return nil }
        return [uplink, tun, host]
    }

    private static func tcxLink(
        _ program: borrowing OwnedDescriptor, _ interface: UInt32
    ) throws(SteeringError) -> OwnedDescriptor? {
        let link = bpf_link_create(
            program.rawValue, CInt(interface), bpf_attach_type(UInt32(CLAT_BPF_TCX_INGRESS)), nil)
        do throws(SteeringError) { return try adopt(link, "attach an eBPF program") } catch {
            if error.isPassing { throw error }
            return nil
        }
    }

    /// Handle and priority are always the same, so that a program left by another process is replaced, not joined.
    private static func attachFilter(
        _ program: borrowing OwnedDescriptor, to interface: UInt32
    ) throws(SteeringError) {
        let descriptor = program.rawValue
        let (answer, log) = BPFLog.collecting { () -> CInt in
            withZeroed(bpf_tc_hook.self) { hook in
                hook.pointee.sz = MemoryLayout<bpf_tc_hook>.size
                hook.pointee.ifindex = CInt(interface)
                hook.pointee.attach_point = BPF_TC_INGRESS
                let created = bpf_tc_hook_create(hook)
                guard created == 0 || created == -EEXIST else { return created }
                return withZeroed(bpf_tc_opts.self) { options in
                    options.pointee.sz = MemoryLayout<bpf_tc_opts>.size
                    options.pointee.prog_fd = descriptor
                    options.pointee.flags = BPF_TC_F_REPLACE.rawValue
                    options.pointee.handle = 1
                    options.pointee.priority = 1
                    return bpf_tc_attach(hook, options)
                }
            }
        }
        guard answer >= 0 else {
            throw SteeringError(SystemError(call: "attach an eBPF filter", code: -answer), log: log)
        }
    }

    /// The queueing discipline, with all its filters: the devices are ours.
    private static func removeFilters(from interface: UInt32) {
        withZeroed(bpf_tc_hook.self) { hook in
            hook.pointee.sz = MemoryLayout<bpf_tc_hook>.size
            hook.pointee.ifindex = CInt(interface)
            hook.pointee.attach_point = bpf_tc_attach_point(BPF_TC_INGRESS.rawValue | BPF_TC_EGRESS.rawValue)
            _ = bpf_tc_hook_destroy(hook)
        }
    }
}

/// Throws where a descriptor is not that of a tcx link at that place of a device.
func checkLink(_ link: CInt, isOn interface: UInt32, _ place: bpf_attach_type) throws(SteeringError) {
    var information = clat_tcx_link_info()
    var size = UInt32(MemoryLayout<clat_tcx_link_info>.size)
    try check(bpf_obj_get_info_by_fd(link, &information, &size), "look at an eBPF link")
    guard information.ifindex == interface, information.attach_type == place.rawValue else {
        throw .failed(SystemError(call: "take over an eBPF link of another device", code: EXDEV))
    }
}

/// A value whose every octet is zero, padding too: libbpf refuses structures with anything past the fields it knows, and a
/// Swift value's padding may be anything.
private func withZeroed<Value, Result>(
    _ type: Value.Type, _ body: (UnsafeMutablePointer<Value>) -> Result
) -> Result {
    let memory = UnsafeMutableRawBufferPointer.allocate(
        byteCount: MemoryLayout<Value>.stride, alignment: MemoryLayout<Value>.alignment)
    defer { memory.deallocate() }
    memory.initializeMemory(as: UInt8.self, repeating: 0)
    guard let start = memory.baseAddress else { preconditionFailure("no memory") }
    return body(start.bindMemory(to: Value.self, capacity: 1))
}
