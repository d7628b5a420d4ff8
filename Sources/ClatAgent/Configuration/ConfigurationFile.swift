import ClatBase
import Glibc

/// Reads `config.toml`.
public enum ConfigurationFile {
    /// Where it is, unless told otherwise; that it is absent is no error.
    public static let standard = "/etc/clat-agent/config.toml"

    /// More octets are no configuration.
    private static let limit = 1 << 20

    /// All that is wrong with a file.
    public struct Problems: Error, CustomStringConvertible {
        /// One sentence each, in the order of the file: `FILE:LINE: KEY: what is wrong; allowed: ...`.
        public var lines: [String]
        /// These.
        public init(lines: [String]) { self.lines = lines }
        /// All of them, a line each.
        public var description: String { lines.joined(separator: "\n") }
    }

    /// Reads a file; nil where there is none.
    public static func read(_ path: String) throws(Problems) -> Configuration? {
        let octets: [UInt8]
        do throws(SystemError) {
            octets = try readFile(path, limit: limit + 1)
            if octets.count > limit { throw SystemError(call: path, code: EFBIG) }
        } catch {
            if error.code == ENOENT { return nil }
            let remedy =
                switch error.code {
                case EACCES, EPERM: "try again with sudo, or let the user clat-agent read it: chmod a+r \(path)"
                case EISDIR: "name a file"
                case EFBIG: "no configuration is that large"
                default: "see whether it is there: ls -l \(path)"
                }
            throw Problems(lines: ["\(path): it cannot be read: \(SystemError.text(of: error.code)); \(remedy)"])
        }
        guard let text = String(validating: octets, as: UTF8.self) else {
            throw Problems(lines: ["\(path): it is not UTF-8 text"])
        }
        return try parse(text, path: path)
    }

    /// Reads a text; `path` is for the sentences.
    public static func parse(_ text: String, path: String) throws(Problems) -> Configuration {
        let document: TOMLDocument
        do throws(TOMLDocument.Malformed) {
            document = try TOMLDocument(text)
        } catch {
            throw Problems(lines: ["\(path):\(error.line): this is not TOML: \(error.text)"])
        }
        let reader = ConfigurationReader(document)
        guard reader.problems.isEmpty else {
            throw Problems(
                lines: reader.problems.sorted { ($0.line, $0.text) < ($1.line, $1.text) }.map { problem in
                    "\(path):\(problem.line): \(problem.text)"
                })
        }
        return reader.configuration
    }
}
