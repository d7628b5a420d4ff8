public import ClatBase
import Glibc

/// A network namespace without a name, held by a descriptor: when the last holder is gone, so is the namespace, and with
/// it every link in it, the peers of its veths, and their addresses and routes.
public struct NetworkNamespace: ~Copyable, Sendable {
    private let owner: OwnedDescriptor

    /// Takes over a descriptor of a `/proc/PID/ns/net`.
    public init(adopting owner: consuming OwnedDescriptor) {
        self.owner = owner
    }

    /// A new namespace, in which even `lo` is down. Needs CAP_SYS_ADMIN.
    public static func create() throws(SystemError) -> NetworkNamespace {
        let descriptor = try Thread(name: "netns") { () -> Result<CInt, SystemError> in
            do throws(SystemError) {
                try retrying("unshare CLONE_NEWNET") { unshare(CLONE_NEWNET) }
                return .success(try openOwn().release())
            } catch { return .failure(error) }
        }.join().get()
        return NetworkNamespace(adopting: OwnedDescriptor(adopting: descriptor))
    }

    /// The namespace of the calling thread.
    public static func current() throws(SystemError) -> NetworkNamespace {
        NetworkNamespace(adopting: try openOwn())
    }

    /// The descriptor's number, valid as long as the owner lives.
    public var descriptor: CInt { owner.rawValue }

    /// What tells one namespace from another: device and inode of the descriptor.
    public struct Identity: Hashable, Sendable {
        /// The device number of nsfs.
        public var device: UInt64
        /// The inode, which `ip netns` and `lsns` show.
        public var inode: UInt64
    }

    /// Device and inode.
    public func identity() throws(SystemError) -> Identity {
        var status = stat()
        try retrying("fstat of a network namespace") { fstat(owner.rawValue, &status) }
        return Identity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
    }

    /// Runs `body` on a thread of its own in this namespace and waits for it. What the body opens stays bound to this
    /// namespace. Needs CAP_SYS_ADMIN. Throws what the body throws, or a `SystemError` of the way in.
    public func run<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) throws -> Value {
        let descriptor = descriptor
        return try onDedicatedThread(name: "netns") {
            try retrying("setns") { setns(descriptor, CLONE_NEWNET) }
            return try body()
        }
    }

    private static func openOwn() throws(SystemError) -> OwnedDescriptor {
        try OwnedDescriptor(opening: "/proc/thread-self/ns/net", O_RDONLY)
    }
}

/// The files below /proc/sys/net, which show each thread those of its own network namespace: from outside, call within
/// `NetworkNamespace.run`.
public enum Sysctl {
    /// Writes a value: `Sysctl.write("0", to: "ipv6/conf/clat0/accept_ra")`.
    public static func write(_ value: String, to name: String) throws(SystemError) {
        let path = "/proc/sys/net/\(name)"
        let file = try OwnedDescriptor(opening: path, O_WRONLY)
        let bytes = Array(value.utf8)
        try retrying("write \(value) to \(path)") { Glibc.write(file.rawValue, bytes, bytes.count) }
    }

    /// Reads a value, without the newline at its end.
    public static func read(_ name: String) throws(SystemError) -> String {
        let path = "/proc/sys/net/\(name)"
        let file = try OwnedDescriptor(opening: path, O_RDONLY)
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = try retrying("read \(path)") { Glibc.read(file.rawValue, &bytes, bytes.count) }
        let text = bytes.prefix(count)
        return String(decoding: text.last == UInt8(ascii: "\n") ? text.dropLast() : text, as: UTF8.self)
    }
}
