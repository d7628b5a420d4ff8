import Foundation
import Testing

@Suite("docs/conformance.md")
struct ConformanceTests {
    static let folder = URL(filePath: #filePath).deletingLastPathComponent()

    /// The names in backticks that look like `Suite.function`.
    static func names(in text: String) -> Set<String> {
        Set(text.matches(of: #/`([A-Z]\w*Tests\.\w+)`/#).map { String($0.1) })
    }

    /// The tests there are, by suite.
    static func tests() throws -> Set<String> {
        var found: Set<String> = []
        for file in try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
        where file.pathExtension == "swift" {
            var suite = ""
            var isTest = false
            for line in try String(contentsOf: file, encoding: .utf8).split(separator: "\n") {
                if let match = line.firstMatch(of: #/^struct (\w+Tests) /#) { suite = String(match.1) }
                if line.contains("    @Test(") { isTest = true }
                if isTest, let match = line.firstMatch(of: #/^ {4}func (\w+)\(/#) {
                    found.insert("\(suite).\(match.1)")
                    isTest = false
                }
            }
        }
        return found
    }

    @Test("Every test that a row names exists, and every row names one")
    func rows() throws {
        let file = Self.folder.appending(path: "../../docs/conformance.md").standardizedFileURL
        let text = try String(contentsOf: file, encoding: .utf8)
        let tests = try Self.tests()
        #expect(tests.count > 50)
        #expect(Self.names(in: text).subtracting(tests).sorted() == [])
        let tables = text.components(separatedBy: "## Differences")[0]
        for row in tables.split(separator: "\n") where row.hasPrefix("|") {
            guard !row.hasPrefix("| ---"), !row.hasPrefix("| source") else { continue }
            #expect(!Self.names(in: String(row)).isEmpty, "\(row)")
        }
    }
}
