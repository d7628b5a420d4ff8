import Glibc

/// The first octets of a file, at most `limit` of them. One that is a pipe is not waited for.
public func readFile(_ path: String, limit: Int = 1 << 16) throws(SystemError) -> [UInt8] {
    let file = try OwnedDescriptor(opening: path, O_RDONLY | O_NONBLOCK)
    var all: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: min(limit, 1 << 16))
    while all.count < limit {
        let room = min(chunk.count, limit - all.count)
        let count = try retrying("read \(path)") { read(file.rawValue, &chunk, room) }
        if count == 0 { break }
        all += chunk[..<count]
    }
    return all
}

/// The same as text; empty where it cannot be read.
public func readText(_ path: String, limit: Int = 1 << 16) -> String {
    String(decoding: (try? readFile(path, limit: limit)) ?? [], as: UTF8.self)
}

/// The names in a directory, `.` and `..` among them; none where it cannot be read.
public func entries(ofDirectory path: String) -> [String] {
    guard let directory = opendir(path) else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
        names.append(
            withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) })
    }
    return names
}

/// Writes all of it; `what` is for the error.
public func writeAll(_ octets: [UInt8], to descriptor: CInt, _ what: @autoclosure () -> String) throws(SystemError) {
    try writeAll(octets, what()) { write(descriptor, $0.baseAddress, $0.count) }
}

/// The same by any call that is like write(2).
public func writeAll(
    _ octets: [UInt8], _ what: @autoclosure () -> String, by call: (UnsafeRawBufferPointer) -> Int
) throws(SystemError) {
    var rest = octets[...]
    while !rest.isEmpty {
        let part = rest
        rest = rest.dropFirst(try retrying(what()) { part.withUnsafeBytes(call) })
    }
}

/// Replaces the whole content of a file in one go: readers see the old or the new, whatever happens meanwhile. A new file
/// beside it is renamed over it. It has that mode whatever the umask.
public func replaceFile(_ path: String, with octets: [UInt8], mode: UInt32 = 0o644) throws(SystemError) {
    let temporary = "\(path).\(getpid()).new"
    do throws(SystemError) {
        let file = try OwnedDescriptor(opening: temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: mode)
        let fd = file.rawValue
        try retrying("chmod \(temporary)") { fchmod(fd, mode) }
        try writeAll(octets, to: fd, "write \(temporary)")
        try retrying("fsync \(temporary)") { fsync(fd) }
        try retrying("rename \(temporary)") { rename(temporary, path) }
    } catch {
        unlink(temporary)
        throw error
    }
}
