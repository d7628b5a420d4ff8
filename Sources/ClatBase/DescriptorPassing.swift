import CLinux
import Glibc

/// Descriptors that travel over a Unix socket (unix(7), SCM_RIGHTS).
public enum DescriptorPassing {
    /// Room for one descriptor with its header, aligned.
    private typealias Control = [4 of UInt64]

    /// Sends all of `octets`, and with them a copy of a descriptor; false where that cannot be done at once.
    public static func send(_ octets: [UInt8], with descriptor: CInt, to socket: CInt) -> Bool {
        var octets = octets
        var control = Control(repeating: 0)
        let sent = message(&octets, &control) { header in
            header.msg_controllen = clat_cmsg_space(MemoryLayout<CInt>.size)
            guard let entry = clat_cmsg_first(&header) else { return -1 }
            entry.pointee.cmsg_level = SOL_SOCKET
            entry.pointee.cmsg_type = CInt(SCM_RIGHTS)
            entry.pointee.cmsg_len = clat_cmsg_length(MemoryLayout<CInt>.size)
            UnsafeMutableRawPointer(mutating: clat_cmsg_data(entry)).storeBytes(of: descriptor, as: CInt.self)
            return sendmsg(socket, &header, CInt(MSG_NOSIGNAL) | CInt(MSG_DONTWAIT))
        }
        return sent == octets.count
    }

    /// As recv(2); `descriptor` becomes one that came along, which is the caller's then.
    public static func receive(into buffer: inout [UInt8], descriptor: inout CInt, from socket: CInt) -> Int {
        var control = Control(repeating: 0)
        return message(&buffer, &control) { header in
            let count = recvmsg(socket, &header, CInt(MSG_CMSG_CLOEXEC))
            if count >= 0, let entry = clat_cmsg_first(&header), entry.pointee.cmsg_level == SOL_SOCKET,
                entry.pointee.cmsg_type == CInt(SCM_RIGHTS),
                entry.pointee.cmsg_len == clat_cmsg_length(MemoryLayout<CInt>.size)
            {
                descriptor = clat_cmsg_data(entry).loadUnaligned(as: CInt.self)
            }
            return count
        }
    }

    private static func message(
        _ octets: inout [UInt8], _ control: inout Control, _ body: (inout msghdr) -> Int
    ) -> Int {
        octets.withUnsafeMutableBytes { octets in
            withUnsafeMutableBytes(of: &control) { control in
                var vector = iovec(iov_base: octets.baseAddress, iov_len: octets.count)
                return withUnsafeMutablePointer(to: &vector) { vector in
                    var header = msghdr()
                    header.msg_iov = vector
                    header.msg_iovlen = 1
                    header.msg_control = control.baseAddress
                    header.msg_controllen = control.count
                    return body(&header)
                }
            }
        }
    }
}
