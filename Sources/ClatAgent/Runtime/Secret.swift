import ClatBase
import Glibc

/// The key of the CLAT addresses (RFC 7217 section 5): made once, kept on disk, readable by the agent's user only (mode 0600).
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
        do throws(SystemError) {
            let secret = try readFile("\(directory)/secret", limit: size)
            return secret.count == size ? secret : nil
        } catch {
            if error.code == ENOENT { return nil }
            throw error
        }
    }

    private static func make(_ directory: String) throws(SystemError) -> [UInt8] {
        if mkdir(directory, 0o700) != 0, errno != EEXIST { throw .last("create \(directory)") }
        let secret = fresh()
        try replaceFile("\(directory)/secret", with: secret, mode: 0o600)
        return secret
    }

    /// A new key that nobody keeps.
    static func fresh() -> [UInt8] {
        (0..<size).map { _ in UInt8.random(in: .min ... .max) }
    }
}
