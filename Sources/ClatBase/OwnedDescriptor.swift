import Glibc

/// Sole owner of an open file descriptor; closes it when its life ends.
public struct OwnedDescriptor: ~Copyable, Sendable {
    /// The number, valid as long as the owner lives.
    public let rawValue: CInt

    /// Takes over an open descriptor.
    public init(adopting rawValue: CInt) {
        precondition(rawValue >= 0)
        self.rawValue = rawValue
    }

    /// Opens a file, close-on-exec.
    public init(opening path: String, _ flags: CInt, mode: UInt32 = 0) throws(SystemError) {
        rawValue = try retrying("open \(path)") { Glibc.open(path, flags | O_CLOEXEC, mode) }
    }

    deinit { _ = Glibc.close(rawValue) }

    /// Gives the number away; the caller closes it.
    public consuming func release() -> CInt {
        let value = rawValue
        discard self
        return value
    }

    /// Another descriptor of the same open file.
    public borrowing func duplicate() throws(SystemError) -> OwnedDescriptor {
        let fd = rawValue
        return OwnedDescriptor(adopting: try retrying("fcntl F_DUPFD_CLOEXEC") { fcntl(fd, F_DUPFD_CLOEXEC, 3) })
    }
}
