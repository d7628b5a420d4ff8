import CLinux
import ClatBase
import Glibc

/// The journal of systemd, by its own protocol: a datagram with a field in each line, `NAME=value`, or where the value has
/// more than one line, `NAME`, a newline, its octets' number as 64 bits little-endian, and the value.
struct Journal {
    private let path: String

    /// Nil where standard error does not lead there: JOURNAL_STREAM names the file that does, `DEVICE:INODE`
    /// (systemd.exec(5)), and a child that redirects its output still has that in its environment.
    init?(
        path: String = "/run/systemd/journal/socket",
        stream: String? = getenv("JOURNAL_STREAM").map { String(cString: $0) },
        descriptor: CInt = STDERR_FILENO
    ) {
        var status = stat()
        guard fstat(descriptor, &status) == 0, stream == "\(status.st_dev):\(status.st_ino)" else { return nil }
        self.path = path
    }

    /// Writes one entry; false where the journal does not take it.
    func write(_ message: String, priority: CInt, _ fields: [(name: String, value: String)]) -> Bool {
        let all = [("MESSAGE", message), ("PRIORITY", "\(priority)"), ("SYSLOG_IDENTIFIER", "clat-agent")] + fields
        let datagram = all.flatMap(Self.field)
        // Anew each time: journald may have been restarted.
        guard let socket = try? OwnedDescriptor(socket: AF_UNIX, .datagram, named: "a socket"),
            (try? UnixAddress(path: path).connect(socket.rawValue)) != nil
        else { return false }
        return send(socket.rawValue, datagram, datagram.count, CInt(MSG_NOSIGNAL | MSG_DONTWAIT)) == datagram.count
    }

    private static func field(_ name: String, _ value: String) -> [UInt8] {
        guard value.utf8.contains(UInt8(ascii: "\n")) else { return Array("\(name)=\(value)\n".utf8) }
        let length = withUnsafeBytes(of: UInt64(value.utf8.count).littleEndian, Array.init)
        return Array("\(name)\n".utf8) + length + Array("\(value)\n".utf8)
    }
}
