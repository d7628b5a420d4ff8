import CLinux
import ClatBase
import Glibc

/// Datagrams of 64 octets, as many as one system call moves.
struct Batch: ~Copyable {
    static let capacity = 64
    static let payload = 64

    private let messages: UnsafeMutableBufferPointer<mmsghdr>
    private let vectors: UnsafeMutableBufferPointer<iovec>
    private let octets: UnsafeMutableRawBufferPointer

    init() {
        messages = .allocate(capacity: Self.capacity)
        vectors = .allocate(capacity: Self.capacity)
        octets = .allocate(byteCount: Self.capacity * Self.payload, alignment: 64)
        octets.initializeMemory(as: UInt8.self, repeating: 0x64)
        for index in 0..<Self.capacity {
            let place = octets.baseAddress?.advanced(by: index * Self.payload)
            vectors.initializeElement(at: index, to: iovec(iov_base: place, iov_len: Self.payload))
            var message = mmsghdr()
            message.msg_hdr.msg_iov = vectors.baseAddress?.advanced(by: index)
            message.msg_hdr.msg_iovlen = 1
            messages.initializeElement(at: index, to: message)
        }
    }

    deinit {
        messages.deallocate()
        vectors.deallocate()
        octets.deallocate()
    }

    /// Sends up to `count` datagrams on a connected socket. Those that found no room are sent and lost; 0 means that the
    /// call was refused for the moment.
    borrowing func send(_ count: Int, on socket: CInt) throws(SystemError) -> Int {
        let sent = sendmmsg(socket, messages.baseAddress, UInt32(min(count, Self.capacity)), 0)
        if sent >= 0 { return Int(sent) }
        let code = errno
        guard code == EINTR || code == ENOBUFS || code == EAGAIN else {
            throw SystemError(call: "sendmmsg", code: code)
        }
        return 0
    }

    /// Takes what is there; 0 where that is nothing.
    borrowing func receive(on socket: CInt) throws(SystemError) -> Int {
        let flags = CInt(MSG_DONTWAIT)
        let count = recvmmsg(socket, messages.baseAddress, UInt32(Self.capacity), flags, nil)
        if count >= 0 { return Int(count) }
        let code = errno
        guard code == EINTR || code == EAGAIN else { throw SystemError(call: "recvmmsg", code: code) }
        return 0
    }
}
