import FoundationEssentials

/// One line of JSON, as programs read it.
enum JSONLine {
    /// A value with its keys sorted. Plain values of strings and numbers always encode.
    static func octets(_ value: some Encodable) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return (try? encoder.encode(value)).map { Array($0) } ?? []
    }

    /// The same as text.
    static func text(_ value: some Encodable) -> String { String(decoding: octets(value), as: UTF8.self) }
}
