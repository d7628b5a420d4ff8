import ClatBase
public struct PlaceholderT { public static var size: Int { BPFObject.hexadecimal.utf8CodeUnitCount } }
