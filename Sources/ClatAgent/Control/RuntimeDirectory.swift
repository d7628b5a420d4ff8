import ClatBase
import Glibc

/// Where the control socket lives.
public enum RuntimeDirectory {
    /// Where a daemon's is, unless told otherwise.
    public static let standard = "/run/clat-agent"

    static func socketPath(_ directory: String) -> String { "\(directory)/control" }

    /// The group of the directory that a socket is in; root's where that cannot be told.
    static func group(ofSocket path: String) -> gid_t {
        let directory = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
        var status = stat()
        return stat(directory, &status) == 0 ? status.st_gid : 0
    }

    /// Makes it where it is missing.
    static func prepare(_ directory: String) throws(SystemError) {
        if mkdir(directory, 0o755) != 0, errno != EEXIST {
            throw SystemError.last("create the runtime directory \(directory)")
        }
    }
}
