import Glibc

/// Replaces the whole content of a file in one go: readers see the old or the new, whatever happens meanwhile. A new file
/// beside it is renamed over it.
public func replaceFile(_ path: String, with octets: [UInt8], mode: UInt32 = 0o644) throws(SystemError) {
    let temporary = "\(path).\(getpid()).new"
    do throws(SystemError) {
        let file = try OwnedDescriptor(opening: temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: mode)
        let fd = file.rawValue
        var rest = octets[...]
        while !rest.isEmpty {
            let part = rest
            rest = rest.dropFirst(
                try retrying("write \(temporary)") { part.withUnsafeBytes { write(fd, $0.baseAddress, $0.count) } })
        }
        try retrying("fsync \(temporary)") { fsync(fd) }
        try retrying("rename \(temporary)") { rename(temporary, path) }
    } catch {
        unlink(temporary)
        throw error
    }
}
