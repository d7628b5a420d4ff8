import ClatBase
import Glibc

/// The interfaces that `clat-agent disable --lasting` switched off: a file with a name in each line, absent where none is.
struct DisabledInterfaces {
    private let path: String

    init(directory: String) { path = "\(directory)/disabled" }

    /// None where the file is absent or cannot be read.
    func read() -> Set<String> {
        guard let file = try? OwnedDescriptor(opening: path, O_RDONLY) else { return [] }
        var octets = [UInt8](repeating: 0, count: 65536)
        let count = Glibc.read(file.rawValue, &octets, octets.count)
        return count > 0 ? Self.names(in: octets[..<count]) : []
    }

    func write(_ names: Set<String>) throws(SystemError) { try replaceFile(path, with: Self.octets(of: names)) }

    static func names(in octets: some Collection<UInt8>) -> Set<String> {
        Set(String(decoding: octets, as: UTF8.self).split(whereSeparator: \.isNewline).map(String.init))
    }

    static func octets(of names: Set<String>) -> [UInt8] { Array(names.sorted().map { $0 + "\n" }.joined().utf8) }
}
