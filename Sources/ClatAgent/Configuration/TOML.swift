/// What a TOML file holds, with the line of everything.
///
/// Of TOML 1.0 this reads what a configuration of ours can use: comments, bare and quoted keys, `[name]` and `[[name]]`,
/// strings in one line, integers, booleans, and lists of these over any number of lines. Numbers with a fraction and dates are
/// kept as they are written, for the sentence that refuses them. Multi-line strings and inline tables are errors.
struct TOMLDocument {
    /// A value.
    enum Value: Hashable {
        case string(String)
        case integer(Int)
        case boolean(Bool)
        case list([Value])
        /// A value of another kind, as it is written.
        case other(String)
    }

    /// A key and its value.
    struct Entry: Hashable {
        var key: String
        var value: Value
        var line: Int
    }

    /// What follows a `[name]` or `[[name]]`.
    struct Section: Hashable {
        var name: String
        var isRepeated: Bool
        var line: Int
        var entries: [Entry] = []
    }

    /// What is wrong with the text itself.
    struct Malformed: Error, Hashable {
        var line: Int
        var text: String
    }

    /// Before the first section.
    private(set) var entries: [Entry] = []
    /// In the order of the text.
    private(set) var sections: [Section] = []

    init(_ text: String) throws(Malformed) {
        var scanner = TOMLScanner(text)
        while try scanner.skipToContent() {
            let line = scanner.line
            if scanner.take("[") {
                let isRepeated = scanner.take("[")
                let name = try scanner.key()
                guard scanner.take("]"), !isRepeated || scanner.take("]") else {
                    throw Malformed(line: line, text: "the name of a section ends with \(isRepeated ? "]]" : "]")")
                }
                let known = sections.contains { $0.name == name && !($0.isRepeated && isRepeated) }
                guard !known, !entries.contains(where: { $0.key == name }) else {
                    throw Malformed(line: line, text: "\(name) is there already")
                }
                sections.append(Section(name: name, isRepeated: isRepeated, line: line))
            } else {
                let key = try scanner.key()
                guard scanner.take("=") else { throw Malformed(line: line, text: "\(key) is not followed by =") }
                let entry = Entry(key: key, value: try scanner.value(), line: line)
                let siblings = sections.last?.entries ?? entries
                guard !siblings.contains(where: { $0.key == key }) else {
                    throw Malformed(line: line, text: "\(key) is there already")
                }
                if sections.isEmpty {
                    entries.append(entry)
                } else {
                    sections[sections.count - 1].entries.append(entry)
                }
            }
            try scanner.endOfLine()
        }
    }
}

extension TOMLDocument.Value: CustomStringConvertible {
    /// As it could be written.
    var description: String {
        switch self {
        case .string(let text): "\"\(text)\""
        case .integer(let number): "\(number)"
        case .boolean(let truth): "\(truth)"
        case .list: "this list"
        case .other(let text): text
        }
    }
}

/// Goes through the text.
private struct TOMLScanner {
    typealias Malformed = TOMLDocument.Malformed
    private let text: [Unicode.Scalar]
    private var position = 0
    private(set) var line = 1
    /// Lists in lists: more is no configuration.
    private static let depthLimit = 8

    init(_ text: String) {
        // A carriage return is white space to us.
        self.text = text.unicodeScalars.map { $0 == "\r" ? " " : $0 }
    }

    private var next: Unicode.Scalar? { position < text.count ? text[position] : nil }

    private mutating func skipBlanks() {
        while let scalar = next, scalar == " " || scalar == "\t" { position += 1 }
    }

    /// Takes a character, and white space around it.
    mutating func take(_ scalar: Unicode.Scalar) -> Bool {
        skipBlanks()
        guard next == scalar else { return false }
        position += 1
        skipBlanks()
        return true
    }

    private mutating func skipComment() throws(Malformed) {
        guard next == "#" else { return }
        while let scalar = next, scalar != "\n" {
            try refuseControl(scalar)
            position += 1
        }
    }

    /// Skips empty lines and comments; false at the end.
    mutating func skipToContent() throws(Malformed) -> Bool {
        while true {
            skipBlanks()
            try skipComment()
            guard next == "\n" else { return next != nil }
            position += 1
            line += 1
        }
    }

    /// Nothing but a comment may follow in this line.
    mutating func endOfLine() throws(Malformed) {
        skipBlanks()
        try skipComment()
        if let scalar = next, scalar != "\n" { throw unexpected(scalar) }
    }

    private func unexpected(_ scalar: Unicode.Scalar?) -> Malformed {
        guard let scalar, scalar != "\n" else { return Malformed(line: line, text: "the line ends too early") }
        return Malformed(line: line, text: "\(scalar.debugDescription) does not belong here")
    }

    private func refuseControl(_ scalar: Unicode.Scalar) throws(Malformed) {
        if scalar.value < 0x20 && scalar != "\t" || scalar.value == 0x7f { throw unexpected(scalar) }
    }

    private static func isBare(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar {
        case "a"..."z", "A"..."Z", "0"..."9", "-", "_": true
        default: false
        }
    }

    /// A key; dots, which make keys of keys, stay in it.
    mutating func key() throws(Malformed) -> String {
        var whole = ""
        repeat {
            skipBlanks()
            if !whole.isEmpty { whole += "." }
            if let scalar = next, scalar == "\"" || scalar == "'" {
                whole += try string()
            } else {
                let start = position
                while let scalar = next, Self.isBare(scalar) { position += 1 }
                guard position > start else { throw unexpected(next) }
                whole += String(String.UnicodeScalarView(text[start..<position]))
            }
        } while take(".")
        return whole
    }

    mutating func value(depth: Int = 0) throws(Malformed) -> TOMLDocument.Value {
        switch next {
        case "\"", "'": return .string(try string())
        case "[":
            position += 1
            return .list(try list(depth: depth))
        case "{": throw Malformed(line: line, text: "an inline table; write a section instead")
        default: return try plain()
        }
    }

    private mutating func list(depth: Int) throws(Malformed) -> [TOMLDocument.Value] {
        guard depth < Self.depthLimit else { throw unexpected("[") }
        var values: [TOMLDocument.Value] = []
        while true {
            guard try skipToContent() else { throw Malformed(line: line, text: "a list without its ]") }
            if take("]") { return values }
            values.append(try value(depth: depth + 1))
            guard try skipToContent() else { throw Malformed(line: line, text: "a list without its ]") }
            if !take(","), next != "]" { throw unexpected(next) }
        }
    }

    /// A string in quotes or apostrophes, in one line.
    private mutating func string() throws(Malformed) -> String {
        guard let quote = next else { throw unexpected(nil) }
        position += 1
        var result = String.UnicodeScalarView()
        while let scalar = next, scalar != "\n" {
            position += 1
            if scalar == quote {
                if result.isEmpty, next == quote {
                    throw Malformed(line: line, text: "a string of more than one line; write it in one")
                }
                return String(result)
            }
            if scalar == "\\", quote == "\"" {
                result.append(try escaped())
            } else {
                try refuseControl(scalar)
                result.append(scalar)
            }
        }
        throw Malformed(line: line, text: "a string without its closing \(quote)")
    }

    private mutating func escaped() throws(Malformed) -> Unicode.Scalar {
        let letter = next
        position += 1
        switch letter {
        case "\"", "\\": return letter ?? "\\"
        case "b": return "\u{8}"
        case "t": return "\t"
        case "n": return "\n"
        case "f": return "\u{c}"
        case "r": return "\r"
        case "u", "U":
            let digits = text[position...].prefix(letter == "u" ? 4 : 8)
            guard digits.count == (letter == "u" ? 4 : 8), digits.allSatisfy(\.properties.isASCIIHexDigit),
                let number = UInt32(String(String.UnicodeScalarView(digits)), radix: 16),
                let scalar = Unicode.Scalar(number)
            else { throw Malformed(line: line, text: "a character number that is none") }
            position += digits.count
            return scalar
        default:
            position -= 1
            throw unexpected(letter)
        }
    }

    /// A number, a boolean, or something else.
    private mutating func plain() throws(Malformed) -> TOMLDocument.Value {
        let start = position
        while let scalar = next, !" \t\n#,]".unicodeScalars.contains(scalar) {
            try refuseControl(scalar)
            position += 1
        }
        guard position > start else { throw unexpected(next) }
        let word = String(String.UnicodeScalarView(text[start..<position]))
        switch word {
        case "true": return .boolean(true)
        case "false": return .boolean(false)
        default: return Self.integer(word).map { .integer($0) } ?? .other(word)
        }
    }

    private static func integer(_ word: String) -> Int? {
        for (mark, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] where word.hasPrefix(mark) {
            return Int(word.dropFirst(2).replacing("_", with: ""), radix: radix)
        }
        return Int(word.replacing("_", with: ""))
    }
}
