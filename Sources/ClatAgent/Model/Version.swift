/// The version, in one place.
public enum Version {
    /// Semantic.
    public static let text = "0.1.0"
}
