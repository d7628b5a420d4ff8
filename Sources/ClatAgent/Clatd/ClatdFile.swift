/// A clatd.conf (clatd 2.1.0): lines `key=value`.
enum ClatdFile {
    /// Keys and values in the order of the file; of a key that is there twice the last counts.
    static func values(_ text: String) -> [(key: String, value: String)] {
        var values: [(key: String, value: String)] = []
        for line in text.split(whereSeparator: \.isNewline) {
            let line = uncommented(String(line))
            guard let mark = line.firstIndex(of: "=") else { continue }
            let key = trimmed(line[..<mark])
            values.removeAll { $0.key == key }
            values.append((key, trimmed(line[line.index(after: mark)...])))
        }
        return values
    }

    /// `#`, `;` and `//` begin comments.
    private static func uncommented(_ line: String) -> Substring {
        var end = line.startIndex
        while end < line.endIndex, line[end] != "#", line[end] != ";", !line[end...].hasPrefix("//") {
            end = line.index(after: end)
        }
        return line[..<end]
    }

    private static func trimmed(_ text: Substring) -> String {
        String(text.drop { $0 == " " || $0 == "\t" }.reversed().drop { $0 == " " || $0 == "\t" }.reversed())
    }
}
