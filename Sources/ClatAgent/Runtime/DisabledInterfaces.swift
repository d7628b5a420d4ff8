import ClatBase

/// The interfaces that `clat-agent disable --lasting` switched off: a file with a name in each line, absent where none is.
struct DisabledInterfaces {
    private let path: String

    init(directory: String) { path = "\(directory)/disabled" }

    /// None where the file is absent or cannot be read.
    func read() -> Set<String> {
        Set(readText(path).split(separator: "\n").map(String.init))
    }

    func write(_ names: Set<String>) throws(SystemError) {
        try replaceFile(path, with: Array(names.sorted().map { $0 + "\n" }.joined().utf8))
    }
}
