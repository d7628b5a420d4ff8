import ClatBase

/// The interfaces that `clat-agent disable --lasting` switched off: a file with a name in each line, absent where none is.
struct DisabledInterfaces {
    private let path: String

    init(directory: String) { path = "\(directory)/disabled" }

    /// None where the file is absent or cannot be read.
    func read() -> Set<String> {
        Self.names(in: readText(path).utf8)
    }

    func write(_ names: Set<String>) throws(SystemError) { try replaceFile(path, with: Self.octets(of: names)) }

    static func names(in octets: some Collection<UInt8>) -> Set<String> {
        Set(String(decoding: octets, as: UTF8.self).split(whereSeparator: \.isNewline).map(String.init))
    }

    static func octets(of names: Set<String>) -> [UInt8] { Array(names.sorted().map { $0 + "\n" }.joined().utf8) }
}
