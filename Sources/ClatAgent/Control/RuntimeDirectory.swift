import ClatBase
import Glibc

/// Where the control socket lives.
public enum RuntimeDirectory {
    /// Where a daemon's is, unless told otherwise.
    public static let standard = "/run/clat-agent"

    static func socketPath(_ directory: String) -> String { "\(directory)/control" }

    /// Makes it where it is missing.
    static func prepare(_ directory: String) throws(SystemError) {
        if mkdir(directory, 0o755) != 0, errno != EEXIST {
            throw SystemError.last("create the runtime directory \(directory)")
        }
    }
}
