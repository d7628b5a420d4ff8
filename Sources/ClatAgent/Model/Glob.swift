import Glibc

/// Patterns of interface names.
enum Glob {
    /// Whether a glob(7) pattern (`*`, `?`, `[a-z]`) matches the whole name. A name without such characters matches itself.
    static func matches(_ pattern: String, _ name: String) -> Bool {
        fnmatch(pattern, name, 0) == 0
    }

    /// Whether it is a pattern rather than a name.
    static func isPattern(_ text: String) -> Bool {
        text.contains { "*?[\\".contains($0) }
    }
}
