import CLinux
import ClatBase
import Glibc

/// Octets behind a descriptor, in memory that nobody can change any more (memfd_create(2)).
enum SealedMemory {
    /// Makes such a descriptor.
    static func make(_ octets: [UInt8]) throws(SystemError) -> OwnedDescriptor {
        let memory = OwnedDescriptor(
            adopting: try retrying("memfd_create") {
                memfd_create("clat-agent", CUnsignedInt(MFD_CLOEXEC | MFD_ALLOW_SEALING))
            })
        let fd = memory.rawValue
        try writeAll(octets, to: fd, "write to a memfd")
        try retrying("seal a memfd") {
            fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
        }
        return memory
    }

    /// Reads at most `limit` octets of what may be any descriptor; nothing where it is no file.
    static func read(_ descriptor: borrowing OwnedDescriptor, limit: Int) -> [UInt8] {
        var status = stat()
        guard fstat(descriptor.rawValue, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return [] }
        var octets = [UInt8](repeating: 0, count: max(0, min(Int(status.st_size), limit)))
        var filled = 0
        while filled < octets.count {
            let count = octets.withUnsafeMutableBytes {
                pread(descriptor.rawValue, $0.baseAddress?.advanced(by: filled), $0.count - filled, off_t(filled))
            }
            guard count > 0 else { break }
            filled += count
        }
        return Array(octets.prefix(filled))
    }
}
