import ClatBase
import Glibc

/// The interfaces that `clat-agent disable` switched off: a file with a name in each line. The one in the state directory is of
/// those that are off for good; where there is one in the runtime directory, which is emptied at boot, it holds instead.
struct DisabledInterfaces {
    private let path: String

    init(directory: String) { path = "\(directory)/disabled" }

    /// Nil where the file is absent or cannot be read.
    func read() -> Set<String>? { (try? readFile(path)).map(Self.names) }

    func remove() { unlink(path) }

    func write(_ names: Set<String>) throws(SystemError) { try replaceFile(path, with: Self.octets(of: names)) }

    static func names(in octets: some Collection<UInt8>) -> Set<String> {
        Set(String(decoding: octets, as: UTF8.self).split(whereSeparator: \.isNewline).map(String.init))
    }

    static func octets(of names: Set<String>) -> [UInt8] { Array(names.sorted().map { $0 + "\n" }.joined().utf8) }
}
