/// What shall move the packets.
public enum Datapath: String, Sendable, CaseIterable, Codable {
    /// The kernel path where the kernel lets us, else user space.
    case auto
    /// Plain TCP, UDP and echo in eBPF, all else in user space; an error where the kernel refuses.
    case kernel
    /// Everything through the TUN and the packet thread.
    case userspace
}

/// What brings packets to the TUN and away from it.
enum SteeringKind: String, Sendable, Codable {
    /// eBPF programs, each attached by a link with a descriptor.
    case tcx
    /// eBPF programs, attached to the devices.
    case clsact
    /// Routes and rules of the namespace.
    case routes
}
