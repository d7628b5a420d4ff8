import CLinux
public import ClatBase
import Glibc

/// A TUN or TAP device and the descriptor its packets are read from and written to; the device dies with its owner.
///
/// Each frame is a `virtio_net_hdr` (10 octets, native byte order) and one IP packet, at a TAP with an Ethernet header before
/// it. With the offloads on, that packet may be a TCP or UDP super-packet of up to 64 KiB, and its checksum may still be open.
public struct TUNDevice: ~Copyable, Sendable {
    /// What a frame is.
    public enum Kind: Sendable {
        /// An IP packet.
        case tun
        /// An Ethernet frame, of a device without neighbour discovery (IFF_NOARP). It is born down, lets nothing out before
        /// it has a filter, and its descriptor does not block.
        case tap

        fileprivate var flag: CInt { self == .tun ? IFF_TUN : IFF_TAP }
    }

    /// What the kernel may hand us unfinished (`TUN_F_*`).
    public struct Offloads: OptionSet, Sendable, Hashable {
        /// The kernel's bits.
        public let rawValue: CUnsignedInt
        /// The offloads of those bits.
        public init(rawValue: CUnsignedInt) { self.rawValue = rawValue }
        /// Open checksums; all others need it.
        public static let checksum = Offloads(rawValue: CUnsignedInt(TUN_F_CSUM))
        /// TCP super-packets, with ECN too.
        public static let tcp = Offloads(rawValue: CUnsignedInt(TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN))
        /// UDP super-packets, since Linux 6.2.
        public static let udp = Offloads(rawValue: CUnsignedInt(TUN_F_USO4 | TUN_F_USO6))
        /// All that we know to handle.
        public static let all: Offloads = [.checksum, .tcp, .udp]
    }

    /// The largest MTU a device can have, so that every super-packet passes in both directions.
    public static let mtu = 65535

    /// Octets of the longest frame: the headers and a packet of 65535 octets.
    public static let largestFrame = MemoryLayout<virtio_net_hdr>.size + Int(ETH_HLEN) + mtu

    /// Of buffers for frames. The kernel copies by `rep movsb`, which on AMD EPYC (measured) falls to a twentieth
    /// of its speed where the target lies 1 to 15 octets after the source modulo 4096. The kernel's own pages being aligned,
    /// a buffer that begins on a page keeps the payload of every kind of packet clear of that.
    static let bufferAlignment = 4096

    /// Where frames are read and written.
    public let descriptor: OwnedDescriptor
    /// In the namespace in which the device was made.
    public let interfaceIndex: UInt32
    /// What the kernel agreed to.
    public let offloads: Offloads

    /// Makes the device in the calling thread's network namespace and brings it up, if it is a TUN.
    ///
    /// - Parameters:
    ///   - name: the interface's name, at most 15 octets.
    ///   - kind: what it is.
    ///   - wanted: what the kernel may hand us unfinished, where it can.
    ///   - queueLength: how many frames may wait for the reader (`txqueuelen`), where the kernel lets us choose.
    public init(
        name: String = "tun", kind: Kind = .tun, offloads wanted: Offloads = .all, queueLength: Int = 1000
    ) throws(SystemError) {
        let descriptor = try OwnedDescriptor(opening: "/dev/net/tun", O_RDWR | (kind == .tap ? O_NONBLOCK : 0))
        let fd = descriptor.rawValue
        var request = ifreq(name: name)
        request.ifr_ifru.ifru_flags = Int16(kind.flag | IFF_NO_PI | IFF_VNET_HDR)
        try retrying("ioctl TUNSETIFF \(name)") { ioctl(fd, UInt(CLAT_TUNSETIFF), &request) }
        let offloads = try Self.setOffloads(of: fd, wanted)

        // Without this the stack would join groups and solicit routers through us.
        if kind == .tun { Self.disableIPv6(on: name) }
        let control = OwnedDescriptor(
            adopting: try retrying("socket") { socket(AF_INET, CInt(SOCK_DGRAM.rawValue) | O_CLOEXEC, 0) })
        let anySocket = control.rawValue
        request = ifreq(name: name)
        try retrying("ioctl SIOCGIFINDEX \(name)") { ioctl(anySocket, UInt(SIOCGIFINDEX), &request) }
        let interfaceIndex = UInt32(bitPattern: request.ifr_ifru.ifru_ivalue)
        request.ifr_ifru.ifru_ivalue = CInt(clamping: queueLength)
        do throws(SystemError) {
            try retrying("ioctl SIOCSIFTXQLEN \(name)") { ioctl(anySocket, UInt(SIOCSIFTXQLEN), &request) }
        } catch {
            // Refused in every user namespace but the machine's; the queue then has the 500 frames it was born with.
            guard error.code == EPERM else { throw error }
        }
        if kind == .tun {
            request.ifr_ifru.ifru_mtu = CInt(Self.mtu)
            try retrying("ioctl SIOCSIFMTU \(name)") { ioctl(anySocket, UInt(SIOCSIFMTU), &request) }
        }
        request.ifr_ifru.ifru_flags = Int16(kind == .tun ? IFF_UP : IFF_NOARP)
        try retrying("ioctl SIOCSIFFLAGS \(name)") { ioctl(anySocket, UInt(SIOCSIFFLAGS), &request) }
        if kind == .tap { try Self.letOut([], of: fd) }
        self.descriptor = descriptor
        self.interfaceIndex = interfaceIndex
        self.offloads = offloads
    }

    /// Takes over a device that another process has made, and that is in the calling thread's network namespace still, up.
    public init(
        adopting descriptor: consuming OwnedDescriptor, kind: Kind = .tun, offloads wanted: Offloads = .all
    ) throws(SystemError) {
        let fd = descriptor.rawValue
        var request = ifreq()
        try retrying("look at the TUN (ioctl TUNGETIFF)") { ioctl(fd, UInt(CLAT_TUNGETIFF), &request) }
        let flags = CInt(kind.flag | IFF_NO_PI | IFF_VNET_HDR)
        guard CInt(request.ifr_ifru.ifru_flags) & flags == flags else {
            throw SystemError(call: "take over a TUN without virtio headers", code: EINVAL)
        }
        let place = OwnedDescriptor(
            adopting: try retrying("ioctl TUNGETDEVNETNS") { ioctl(fd, UInt(CLAT_TUNGETDEVNETNS)) })
        let own = try OwnedDescriptor(opening: "/proc/thread-self/ns/net", O_RDONLY)
        var (theirs, ours) = (stat(), stat())
        guard fstat(place.rawValue, &theirs) == 0, fstat(own.rawValue, &ours) == 0, theirs.st_ino == ours.st_ino else {
            throw SystemError(call: "take over a TUN of another network namespace", code: EXDEV)
        }
        let control = OwnedDescriptor(
            adopting: try retrying("socket") { socket(AF_INET, CInt(SOCK_DGRAM.rawValue) | O_CLOEXEC, 0) })
        let anySocket = control.rawValue
        try retrying("ioctl SIOCGIFFLAGS of the TUN") { ioctl(anySocket, UInt(SIOCGIFFLAGS), &request) }
        guard CInt(request.ifr_ifru.ifru_flags) & CInt(IFF_UP) != 0 else {
            throw SystemError(call: "take over a TUN that is down", code: ENETDOWN)
        }
        try retrying("ioctl SIOCGIFINDEX of the TUN") { ioctl(anySocket, UInt(SIOCGIFINDEX), &request) }
        let interfaceIndex = UInt32(bitPattern: request.ifr_ifru.ifru_ivalue)
        offloads = try Self.setOffloads(of: fd, wanted)
        self.descriptor = descriptor
        self.interfaceIndex = interfaceIndex
    }

    /// As many offloads as the kernel knows; without any super-packet it still works, at a tenth of the speed.
    private static func setOffloads(of fd: CInt, _ wanted: Offloads) throws(SystemError) -> Offloads {
        for offloads in [wanted, wanted.subtracting(.udp)]
        where ioctl(fd, UInt(CLAT_TUNSETOFFLOAD), CInt(offloads.rawValue)) == 0 {
            return offloads
        }
        try retrying("ioctl TUNSETOFFLOAD") {
            ioctl(fd, UInt(CLAT_TUNSETOFFLOAD), CInt(Offloads.checksum.rawValue))
        }
        return .checksum
    }

    /// A TAP's own address, as six octets.
    func hardwareAddress() throws(SystemError) -> [UInt8] {
        let fd = descriptor.rawValue
        var request = ifreq()
        // Of the device of the descriptor, whatever it is called.
        try retrying("ioctl SIOCGIFHWADDR of the TAP") { ioctl(fd, UInt(SIOCGIFHWADDR), &request) }
        return withUnsafeBytes(of: request.ifr_ifru.ifru_hwaddr.sa_data) { Array($0.prefix(Int(ETH_ALEN))) }
    }

    /// From now on a TAP hands out IPv6 packets from these addresses, and nothing else.
    func letOut(_ addresses: [IPv6Address]) throws(SystemError) { try Self.letOut(addresses, of: descriptor.rawValue) }

    private static func letOut(_ addresses: [IPv6Address], of fd: CInt) throws(SystemError) {
        let filter = AddressFilter(addresses, at: .source, linkHeader: Int(ETH_HLEN))
        try filter.withProgram { program throws(SystemError) in
            _ = try retrying("ioctl TUNATTACHFILTER") { ioctl(fd, UInt(CLAT_TUNATTACHFILTER), program) }
        }
    }

    /// Where /proc/sys is read-only the stack's few packets are counted as drops instead.
    private static func disableIPv6(on name: String) {
        guard let file = try? OwnedDescriptor(opening: "/proc/sys/net/ipv6/conf/\(name)/disable_ipv6", O_WRONLY) else {
            return
        }
        _ = write(file.rawValue, "1", 1)
    }
}

extension ifreq {
    /// A request about the interface of that name, cut to what a name may have.
    fileprivate init(name: String) {
        self.init()
        withUnsafeMutableBytes(of: &ifr_ifrn) { bytes in
            bytes.copyBytes(from: name.utf8.prefix(Int(IFNAMSIZ) - 1))
        }
    }
}
