import CLinux
import ClatBase
import Glibc

/// One connection of a client to the control socket: sends a call, takes replies in.
struct ControlConnection: ~Copyable {
    private let socket: OwnedDescriptor
    private let path: String
    private var buffer: [UInt8] = []
    private var descriptor: OwnedDescriptor?

    /// Connects; every call and reply may then take `limit` seconds, or any time.
    init(path: String, limit: Int?) throws(SystemError) {
        let socket = try OwnedDescriptor(socket: AF_UNIX, .stream, blocking: true, named: "a socket")
        var time = timeval(tv_sec: limit ?? 0, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(socket.rawValue, SOL_SOCKET, option, &time, socklen_t(MemoryLayout<timeval>.size))
        }
        try UnixAddress(path: path).connect(socket.rawValue)
        self.socket = socket
        self.path = path
    }

    /// Sends a whole call.
    borrowing func send(_ call: [UInt8]) throws(SystemError) {
        let fd = socket.rawValue
        try writeAll(call, "send to \(path)") { Glibc.send(fd, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL)) }
    }

    /// The descriptor that came with a reply, once.
    mutating func takeDescriptor() -> OwnedDescriptor? { descriptor.take() }

    /// Nothing more is sent or received; that it can be read then means that the agent has ended.
    consuming func idle() -> OwnedDescriptor { socket }

    /// The next reply, without its final octet 0.
    mutating func receive() throws(SystemError) -> [UInt8] {
        let fd = socket.rawValue
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            if let end = buffer.firstIndex(of: 0) {
                let reply = Array(buffer[..<end])
                buffer.removeFirst(end + 1)
                return reply
            }
            var received: CInt = -1
            let count = try retrying("receive from \(path)") {
                DescriptorPassing.receive(into: &chunk, descriptor: &received, from: fd)
            }
            if received >= 0 { descriptor = OwnedDescriptor(adopting: received) }
            guard count > 0 else { throw SystemError(call: "receive from \(path)", code: ECONNRESET) }
            buffer += chunk[..<count]
        }
    }
}
