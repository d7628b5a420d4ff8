import ClatBase
import Glibc

/// The key of the CLAT addresses (RFC 7217 section 5): made once, kept on disk, readable by root only.
enum Secret {
    static let size = 32

    /// Reads the key, or makes one. Where the directory cannot be used the key lasts for this run, and the error
    /// tells why.
    static func load(directory: String) -> (secret: [UInt8], problem: SystemError?) {
        do throws(SystemError) {
            if let kept = try read(directory) { return (kept, nil) }
            return (try make(directory), nil)
        } catch {
            return (fresh(), error)
        }
    }

    private static func read(_ directory: String) throws(SystemError) -> [UInt8]? {
        let file: OwnedDescriptor
        do throws(SystemError) {
            file = try OwnedDescriptor(opening: "\(directory)/secret", O_RDONLY)
        } catch {
            if error.code == ENOENT { return nil }
            throw error
        }
        var bytes = [UInt8](repeating: 0, count: size)
        let fd = file.rawValue
        let count = try retrying("read \(directory)/secret") { Glibc.read(fd, &bytes, size) }
        return count == size ? bytes : nil
    }

    private static func make(_ directory: String) throws(SystemError) -> [UInt8] {
        if mkdir(directory, 0o700) != 0, errno != EEXIST { throw .last("create \(directory)") }
        let secret = fresh()
        let temporary = "\(directory)/secret.new"
        do {
            let file = try OwnedDescriptor(opening: temporary, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
            let fd = file.rawValue
            try retrying("write \(temporary)") { write(fd, secret, size) }
            try retrying("fsync \(temporary)") { fsync(fd) }
        }
        try retrying("rename \(temporary)") { rename(temporary, "\(directory)/secret") }
        return secret
    }

    /// A new key that nobody keeps.
    static func fresh() -> [UInt8] {
        (0..<size).map { _ in UInt8.random(in: .min ... .max) }
    }
}
