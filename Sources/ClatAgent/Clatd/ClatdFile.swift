/// A clatd.conf (clatd 2.1.0): lines `key=value`.
enum ClatdFile {
    /// Keys and values in the order of the file; of a key that is there twice the last counts. Where there is no `=` all of the line
    /// is the key, and the value nil.
    static func values(_ text: String) -> [(key: String, value: String?)] {
        var values: [(key: String, value: String?)] = []
        for line in text.split(whereSeparator: \.isNewline) {
            let line = trimmed(line)
            // Comments are whole lines; within one these may be part of the value.
            if line.isEmpty || ["#", ";", "//"].contains(where: { line.hasPrefix($0) }) { continue }
            guard let mark = line.firstIndex(of: "=") else {
                values.append((line, nil))
                continue
            }
            let key = trimmed(line[..<mark])
            values.removeAll { $0.key == key }
            values.append((key, trimmed(line[line.index(after: mark)...])))
        }
        return values
    }

    private static func trimmed(_ text: Substring) -> String {
        String(text.drop { $0 == " " || $0 == "\t" }.reversed().drop { $0 == " " || $0 == "\t" }.reversed())
    }
}
